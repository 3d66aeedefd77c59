import { createHash } from 'node:crypto'

import t from 'tap'

import { sha256 } from '../../src/lib/sha256.ts'

const expected = (data: Uint8Array | string): string => createHash('sha256').update(data).digest('hex')

t.test('digests are those of node:crypto, for octets and for text in UTF-8', async (t) => {
  const octets = Buffer.from(Array.from({ length: 256 }, (_, i) => i))
  for (const data of ['', 'münchen — 東京', octets, octets.subarray(3, 100), new Uint8Array(65_536)])
    t.equal(sha256(data).toString('hex'), expected(data))
})

t.test('no digest is written over by those that come after it', async (t) => {
  const digests = Array.from({ length: 1_000 }, (_, i) => sha256(`${i}`))
  digests.forEach((digest, i) => {
    if (digest.toString('hex') !== expected(`${i}`)) t.fail(`digest ${i}`)
  })
  t.equal(new Set(digests.map((digest) => digest.toString('hex'))).size, 1_000)
})
