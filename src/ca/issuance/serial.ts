/** Serial numbers of certificates, and the shard of its issuer's lists that one belongs to. */

/** 16 octets, positive, never shortened: two bits are fixed (01), 126 are random (RFC 5280 4.1.2.2). */
export const newSerial = (random: (octets: number) => Buffer): Buffer => {
  const serial = random(serialOctets)
  serial[0] = ((serial[0] ?? 0) & 0x3f) | 0x40
  return serial
}

/** By its last octets, which are random. */
export const shardOf = (serial: Buffer, shards: number): number => serial.readUInt32BE(serialOctets - 4) % shards

const serialOctets = 16
