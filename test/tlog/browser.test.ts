/** The roll's code runs where Node is not. */
import { execFile } from 'node:child_process'
import { glob, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'

import { encodeEntry } from '../../src/tlog/entries.ts'
import { emptyEdge, extend } from '../../src/tlog/frontier.ts'
import { hasher, sha256 as ours } from './hashing.ts'
import { sha256 } from './sha256.ts'

const folder = join(import.meta.dirname, '../../src/tlog')
const onlyInNode = /\b(Buffer|process|require|globalThis|setImmediate|setTimeout|performance|crypto|console)\b/
const withoutComments = (source: string): string => source.replaceAll(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '')

t.test(
  'its files import each other, the table of problems and canonical JSON, and name nothing that is only in Node',
  async (t) => {
    const allowed = /^(\.\/[a-z-]+\.ts|\.\.\/(errors|lib\/canonical-json)\.ts)$/
    for await (const file of glob('**/*.ts', { cwd: folder })) {
      const source = await readFile(join(folder, file), 'utf8')
      for (const [, from = ''] of source.matchAll(/\bfrom '([^']+)'|\bimport\(/g))
        t.match(from, allowed, `${file} imports ${from}`)
      t.notMatch(withoutComments(source), onlyInNode, file)
    }
  },
)

t.test(
  'it runs in a world that has the language, TextEncoder and TextDecoder, with a hash of the language alone',
  async (t) => {
    const { stdout } = await promisify(execFile)(process.execPath, [
      '--experimental-vm-modules',
      '--no-warnings',
      join(import.meta.dirname, 'sandbox.ts'),
    ])
    const { answer, loaded } = JSON.parse(stdout)
    const leaves = Array.from({ length: 300 }, (_, i) =>
      hasher.leaf(
        Buffer.from(encodeEntry({ type: 'service.started', version: `0.0.${i}`, mode: 'production' }, new Date(i))),
      ),
    )
    const root = Buffer.from(extend(emptyEdge(hasher), leaves, hasher).edge.root).toString('hex')
    t.same(answer, { ok: true, findings: [], root, tile: 1, old: 3 })
    const files: string[] = []
    for await (const file of glob('**/*.ts', { cwd: folder })) files.push(`src/tlog/${file}`)
    t.same(
      files.filter((file) => !loaded.includes(file)),
      [],
      'every file of it was loaded',
    )
  },
)

t.test('that hash is SHA-256', async (t) => {
  for (const length of [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000, 65_536])
    t.same(
      Buffer.from(sha256(new Uint8Array(length).fill(length))),
      ours(new Uint8Array(length).fill(length)),
      `${length}`,
    )
})
