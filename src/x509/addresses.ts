/** IP addresses: octets, their one canonical text, and the many other texts that some software reads as one. */

/** The 4 or 16 octets of an address in text: dotted quad without leading zeros, or RFC 4291 2.2 without a zone. */
export const parseIp = (text: string): Buffer | undefined => {
  if (text.length > 45) return undefined
  return text.includes(':') ? parseV6(text) : parseV4(text)
}

/** Canonical text: dotted quad, or RFC 5952. Takes 4 or 16 octets. */
export const formatIp = (octets: Buffer): string => {
  if (octets.length === 4) return octets.join('.')
  const groups = Array.from({ length: 8 }, (_, i) => octets.readUInt16BE(2 * i))
  const gap = longestGap(groups)
  const write = (from: number, to: number): string =>
    groups
      .slice(from, to)
      .map((group) => group.toString(16))
      .join(':')
  return gap === undefined ? write(0, 8) : `${write(0, gap.from)}::${write(gap.to, 8)}`
}

/**
 * Is this IPv6 address an IPv4 address in disguise: mapped ::ffff:0:0/96 or compatible ::/96 (RFC 4291 2.5.5)? Rules
 * for IPv4 would not see it. :: and ::1 are their own.
 */
export const isEmbeddedV4 = (octets: Buffer): boolean => {
  if (!octets.subarray(0, 10).equals(zeros)) return false
  const marker = octets.readUInt16BE(10)
  return marker === 0xffff || (marker === 0 && octets.readUInt32BE(12) > 1)
}

/**
 * Would something read this text as an IP address? IPv6 in or out of brackets, and everything inet_aton takes: one to
 * four numbers in decimal, octal or hexadecimal, with any zeros before. A bare decimal number counts from 2^24 on; below, it is
 * a number. Linear in the text.
 */
export const isAddressLiteral = (text: string): boolean => {
  if (text.includes(':')) return parseV6(text.replace(/^\[(.*)\]$/, '$1').replace(/%.*$/s, '')) !== undefined
  if (!/^(?:0[xX][0-9a-fA-F]*|\d+)(?:\.(?:0[xX][0-9a-fA-F]*|\d+)){0,3}\.?$/.test(text)) return false
  return (
    !/^\d+$/.test(text) ||
    (Number(text) >= 2 ** 24 && Number(text) < 2 ** 32) ||
    (text.length > 1 && text.startsWith('0'))
  )
}

const parseV4 = (text: string): Buffer | undefined => {
  const match = v4Form.exec(text)
  if (match === null) return undefined
  const octets = match.slice(1).map(Number)
  return octets.every((octet) => octet < 256) ? Buffer.from(octets) : undefined
}

const parseV6 = (text: string): Buffer | undefined => {
  const halves = text.split('::')
  if (halves.length > 2) return undefined
  const [head, tail] = halves.map((half, i) => parseGroups(half, i === halves.length - 1))
  if (head === undefined || (halves.length === 2 && tail === undefined)) return undefined
  const missing = 16 - head.length - (tail?.length ?? 0)
  if (halves.length === 1 ? missing !== 0 : missing < 2) return undefined
  return Buffer.concat([Buffer.from(head), Buffer.alloc(missing), Buffer.from(tail ?? [])])
}

const parseGroups = (text: string, last: boolean): number[] | undefined => {
  if (text === '') return []
  const groups = text.split(':')
  const octets: number[] = []
  for (const [i, group] of groups.entries()) {
    if (/^[0-9A-Fa-f]{1,4}$/.test(group)) {
      const value = Number.parseInt(group, 16)
      octets.push(value >> 8, value & 0xff)
      continue
    }
    const v4 = last && i === groups.length - 1 ? parseV4(group) : undefined
    if (v4 === undefined) return undefined
    octets.push(...v4)
  }
  return octets
}

/** The longest run of at least two zero groups, the first of equals (RFC 5952 4.2). */
const longestGap = (groups: readonly number[]): { from: number; to: number } | undefined => {
  let best: { from: number; to: number } | undefined
  for (let from = 0; from < 8; from++) {
    let to = from
    while (groups[to] === 0) to++
    if (to - from > (best === undefined ? 1 : best.to - best.from)) best = { from, to }
  }
  return best
}

const octet = '(0|[1-9]\\d{0,2})'
const v4Form = new RegExp(`^${[octet, octet, octet, octet].join('\\.')}$`)
const zeros = Buffer.alloc(10)
