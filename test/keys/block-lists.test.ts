import { generateKeyPairSync } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

import t from 'tap'

import { loadBlockLists } from '../../src/keys/block-lists.ts'
import { blockListHash } from '../../src/x509/block-list.ts'
import { parsePublicKey } from '../../src/x509/keys.ts'

const newKey = () =>
  parsePublicKey(generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ type: 'spki', format: 'der' }))

const file = (t: { testdir(): string }, name: string, content: string | Buffer): string => {
  const path = join(t.testdir(), name)
  writeFileSync(path, content)
  return path
}

t.test('without a file nothing is blocked', async (t) => {
  const isBlocked = await loadBlockLists({})
  const key = newKey()
  t.notOk(isBlocked(key.sha256.toString('hex'), key))
})

t.test('a list of SPKI hashes blocks what it names, in either case, with comments', async (t) => {
  const [bad, good] = [newKey(), newKey()]
  const path = file(t, 'spki.txt', `# stolen\n\n${bad.sha256.toString('hex').toUpperCase()}  # build 4711\n`)
  const isBlocked = await loadBlockLists({ spki: path })
  t.ok(isBlocked(bad.sha256.toString('hex'), bad))
  t.notOk(isBlocked(good.sha256.toString('hex'), good))
})

t.test('a list in the format of badkeys blocks what it names', async (t) => {
  const [bad, good] = [newKey(), newKey()]
  const path = file(t, 'blocklist.dat', Buffer.concat([blockListHash(bad), Buffer.from([1])]))
  const isBlocked = await loadBlockLists({ badkeys: path })
  t.ok(isBlocked(bad.sha256.toString('hex'), bad))
  t.notOk(isBlocked(good.sha256.toString('hex'), good))
})

t.test('a list that cannot be used stops the start with a sentence', async (t) => {
  await t.rejects(loadBlockLists({ spki: '/nowhere/list' }), /list of blocked keys \/nowhere\/list cannot be used/)
  await t.rejects(loadBlockLists({ spki: file(t, 'a', 'abc\n') }), /line 1 is not a SHA-256/)
  await t.rejects(loadBlockLists({ badkeys: file(t, 'b', 'short') }), /blocks of 16 octets/)
})
