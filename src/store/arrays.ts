/**
 * Columns of many rows as arrays in PostgreSQL's own binary form (`array_recv`), one parameter each: what is octets stays
 * octets, and nothing is parsed on either side. As JSON, a row of fourteen columns took 4 µs more in PostgreSQL and 1 to 2
 * here (measured, of 9 and 6).
 */

export const textArray = (values: readonly (string | null | undefined)[]): Buffer => {
  let size = headOctets
  for (const value of values) size += 4 + (value ? Buffer.byteLength(value) : 0)
  const array = head(types.text, values.length, size)
  let at = headOctets
  for (const value of values) {
    if (value === null || value === undefined) {
      at = array.writeInt32BE(absent, at)
      continue
    }
    const length = array.write(value, at + 4)
    array.writeInt32BE(length, at)
    at += 4 + length
  }
  return array
}

export const byteaArray = (values: readonly (Buffer | null | undefined)[]): Buffer => {
  let size = headOctets
  for (const value of values) size += 4 + (value?.length ?? 0)
  const array = head(types.bytea, values.length, size)
  let at = headOctets
  for (const value of values) {
    at = array.writeInt32BE(value?.length ?? absent, at)
    if (value) at += value.copy(array, at)
  }
  return array
}

export const int4Array = (values: readonly number[]): Buffer => {
  const array = head(types.int4, values.length, headOctets + 8 * values.length)
  let at = headOctets
  for (const value of values) {
    at = array.writeInt32BE(4, at)
    at = array.writeInt32BE(value, at)
  }
  return array
}

export const timestamptzArray = (values: readonly Date[]): Buffer => {
  const array = head(types.timestamptz, values.length, headOctets + 12 * values.length)
  let at = headOctets
  for (const value of values) {
    at = array.writeInt32BE(8, at)
    at = array.writeBigInt64BE(BigInt(value.getTime() - epoch) * 1000n, at)
  }
  return array
}

/** One dimension from 1 on; whether there are nulls is found out by whoever reads it. */
const head = (type: number, count: number, size: number): Buffer => {
  const array = Buffer.allocUnsafe(size)
  for (const [i, word] of [1, 1, type, count, 1].entries()) array.writeInt32BE(word, 4 * i)
  return array
}

/** Object ids of `pg_type`, the same in every database. */
const types = { bytea: 17, int4: 23, text: 25, timestamptz: 1184 } as const
const headOctets = 20
const absent = -1
/** Instants are counted from here. */
const epoch = Date.UTC(2000, 0, 1)
