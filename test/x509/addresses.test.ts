/** Addresses against Node's own readers: `net`, and the URL parser, which writes IPv6 as RFC 5952 does. */
import { isIP } from 'node:net'

import t from 'tap'

import { formatIp, parseIp } from '../../src/x509/addresses.ts'

let seed = 5952
const pick = (count: number): number => {
  seed = (seed * 48_271) % 2_147_483_647
  return seed % count
}
const written = (text: string): string => new URL(`http://[${text}]`).hostname.slice(1, -1)

t.test('the same texts are addresses', async (t) => {
  const pieces = ['0', '1', '255', '256', '01', 'ffff', '0abc', 'fffff', 'g', '1.2.3.4', 'AB', '-', '/']
  const joints = [':', ':', ':', '::', '.', '']
  const octetsOf = new Map([
    [4, 4],
    [6, 16],
  ])
  const wrong: string[] = []
  let addresses = 0
  for (let i = 0; i < 30_000; i++) {
    const parts = Array.from({ length: 1 + pick(9) }, () => `${pieces[pick(pieces.length)]}${joints[pick(6)]}`)
    const text = `${pick(4) === 0 ? '::' : ''}${parts.join('')}`
    const octets = parseIp(text)
    if (octetsOf.get(isIP(text)) !== octets?.length) wrong.push(text)
    if (octets === undefined) continue
    addresses++
    if (formatIp(octets) !== (octets.length === 4 ? text : written(text))) wrong.push(text)
  }
  t.ok(addresses > 300, `${addresses} addresses`)
  t.same(wrong, [])
})

t.test('an address has the same text', async (t) => {
  const wrong: string[] = []
  for (let i = 0; i < 5000; i++) {
    const groups = Array.from({ length: 8 }, () => (pick(3) > 0 ? 0 : pick(0x10000) >> (4 * pick(4))))
    const text = groups.map((group) => group.toString(16)).join(':')
    const octets = parseIp(text)
    if (octets === undefined || formatIp(octets) !== written(text)) wrong.push(text)
    else if (!parseIp(written(text))?.equals(octets)) wrong.push(written(text))
  }
  t.same(wrong, [])
})
