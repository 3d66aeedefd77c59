import { createHash } from 'node:crypto'

import t from 'tap'

import { sha256 } from '../src/sha256.ts'

t.test('digests are those of node:crypto, for octets and for text in UTF-8', async (t) => {
  const octets = Buffer.from(Array.from({ length: 256 }, (_, i) => i))
  for (const data of ['', 'münchen — 東京', octets, octets.subarray(3, 100), new Uint8Array(65_536)]) {
    t.ok(sha256(data).equals(createHash('sha256').update(data).digest()))
  }
  const [one, other] = [sha256('one'), sha256('other')]
  t.ok(one.equals(createHash('sha256').update('one').digest()), 'and the next leaves the one before as it was')
  t.notOk(one.equals(other))
})
