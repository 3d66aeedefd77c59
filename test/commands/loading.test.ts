/** What a command waits for before it does anything: its own files and commander, and nothing that most never need. */
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'

import { bare } from '../helpers/environment.ts'

const main = join(import.meta.dirname, '../../src/main.ts')

t.test('a command loads no library but commander before it knows what is asked', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-loading-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const hook = join(folder, 'hook.mjs')
  await writeFile(hook, tellsPackages)
  for (const args of [['--version'], ['issue', '--help'], ['profile', 'apply', '--help']]) {
    const { stderr } = await promisify(execFile)(process.execPath, ['--import', hook, main, ...args], { env: bare })
    t.same(JSON.parse(stderr), ['commander'], args.join(' '))
  }
})

/** On stderr, at the end: the packages that modules were loaded from. */
const tellsPackages = `
  import { registerHooks } from 'node:module'
  const packages = new Set()
  registerHooks({
    load(url, context, next) {
      const name = /.*node_modules\\/((?:@[^/]+\\/)?[^/]+)/.exec(url)?.[1]
      if (name !== undefined) packages.add(name)
      return next(url, context)
    },
  })
  process.on('exit', () => process.stderr.write(JSON.stringify([...packages])))
`
