/** Several orders at once: which of them failed, and what becomes of two for one folder. */
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { exitCodes } from '../../src/lib/failure.ts'
import { chanceryFor } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { newFolder, readShown } from './folders.ts'

t.setTimeout(300_000)
const service = await openTestService(t)
const chancery = chanceryFor(service)

slowTest('each that failed is told of with its folder, and the first decides the exit code', async (t) => {
  const folder = await newFolder(t)
  const file = join(folder, 'orders.yaml')
  const [one, two, three] = ['one', 'two', 'three'].map((name) => join(folder, name)) as [string, string, string]
  await writeFile(
    file,
    `- { profile: server, names: [one.elsewhere.test], out: ${one} }
- { profile: server, names: [two.example.com], out: ${two} }
- { profile: server, names: [three.example.com], out: ${three}, exec: "false" }
`,
  )
  const text = await chancery(['issue', '--orders', file])
  t.equal(text.code, exitCodes.refused)
  t.match(text.err, new RegExp(`^${one}: The check names\\.dns\\.allow failed`, 'm'))
  t.notMatch(text.err, /^ {2}names\.dns\.allow/m, 'and it is told once')
  t.match(text.err, new RegExp(`^${three}: The new certificate is in its place, but --exec failed: false ended`, 'm'))
  t.ok(await readShown(two))
  const json = await chancery(['issue', '--orders', file, '--json'])
  t.equal(json.code, exitCodes.refused)
  const failure = JSON.parse(json.err)
  t.match(failure, {
    ...{ status: 422, code: 'san.forbidden' },
    orders: [
      { out: one, status: 422, code: 'san.forbidden' },
      { out: three, failure: 'later', exitCode: exitCodes.later, code: 'exec.failed' },
    ],
  })
  t.equal(failure.orders.length, 2)
})

t.test('two orders for one folder are none, also behind a link', async (t) => {
  const folder = await newFolder(t)
  const file = join(folder, 'orders.yaml')
  const [out, link] = [join(folder, 'web'), join(folder, 'link')]
  await mkdir(out)
  await symlink(out, link)
  await writeFile(
    file,
    `- { profile: server, names: [a.example.com], out: ${out} }\n- { profile: server, names: [b.example.com], out: ${link} }\n`,
  )
  t.match(await chancery(['issue', '--orders', file]), {
    code: exitCodes.usage,
    err: `Two orders are for ${out}; each takes a folder of its own.`,
  })
  t.equal(await readShown(out), undefined)
})

t.test('an order that is none is told by its number', async (t) => {
  const folder = await newFolder(t)
  const file = join(folder, 'orders.yaml')
  const good = `- { profile: server, names: [a.example.com], out: ${join(folder, 'a')} }\n`
  for (const [order, sentence] of [
    ['{ profile: server, names: [b.example.com] }', /^Order 2: Name the folder .* by --out\.\n$/],
    [`{ profile: server, names: [b.example.com], out: "" }`, /^Order 2: Name the folder .* by --out\.\n$/],
    [`{ profile: server, names: ["b c"], out: ${join(folder, 'b')} }`, /^Order 2: b c: a DNS name/],
  ] as const) {
    await writeFile(file, `${good}- ${order}\n`)
    t.match(await chancery(['issue', '--orders', file]), { code: exitCodes.usage, err: sentence })
  }
})
