/**
 * WebAssembly put together here: functions of straight-line code over integers of 64 bits, which take three addresses in
 * one memory and return nothing (WebAssembly Core Specification, chapter 5). No branches, no loops, no calls but to each
 * other.
 */

/** Octets of instructions. */
export type Code = readonly number[]

export interface WasmFunction {
  readonly name: string
  /** Locals of 64 bits; they are numbered from 3, after the parameters. */
  readonly locals: number
  readonly body: Code
}

/** LEB128, signed, as constants are written. */
const signed = (value: bigint): Code => {
  const low = Number(value & 0x7fn)
  const rest = value >> 7n
  const ends = rest === ((low & 0x40) === 0 ? 0n : -1n)
  return ends ? [low] : [low | 0x80, ...signed(rest)]
}

/** LEB128, unsigned, as lengths and indexes are written. */
const unsigned = (value: number): Code => (value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)])

const vector = (items: readonly Code[]): Code => [...unsigned(items.length), ...items.flat()]
const text = (value: string): Code => vector(Array.from(Buffer.from(value), (octet) => [octet]))
const section = (id: number, items: readonly Code[]): Code => {
  const content = vector(items)
  return [id, ...unsigned(content.length), ...content]
}

/** Instructions. What is loaded and stored are signed words of 32 bits. */
export const op = {
  call: (index: number): Code => [0x10, ...unsigned(index)],
  get: (local: number): Code => [0x20, ...unsigned(local)],
  set: (local: number): Code => [0x21, ...unsigned(local)],
  load: (offset: number): Code => [0x34, 2, ...unsigned(offset)],
  store: (offset: number): Code => [0x3e, 2, ...unsigned(offset)],
  address: (value: number): Code => [0x41, ...signed(BigInt(value))],
  constant: (value: bigint): Code => [0x42, ...signed(value)],
  plus: [0x7c],
  minus: [0x7d],
  times: [0x7e],
  and: [0x83],
  shiftLeft: [0x86],
  shiftRight: [0x87],
} as const

const type = { address: 0x7f, int64: 0x7e, function: 0x60, end: 0x0b } as const
const header = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00]
const threeAddresses = [type.function, ...vector(Array(3).fill([type.address])), 0]

/** A module that is given its memory as `env.memory` and exports all functions, which call each other by their places. */
export const assemble = (functions: readonly WasmFunction[]): Uint8Array<ArrayBuffer> =>
  Uint8Array.from([
    ...header,
    ...section(1, [threeAddresses]),
    ...section(2, [[...text('env'), ...text('memory'), 2, 0, 1]]),
    ...section(
      3,
      functions.map(() => [0]),
    ),
    ...section(
      7,
      functions.map(({ name }, i) => [...text(name), 0, ...unsigned(i)]),
    ),
    ...section(10, functions.map(encodeBody)),
  ])

const encodeBody = ({ locals, body }: WasmFunction): Code => {
  const code = [...vector([[...unsigned(locals), type.int64]]), ...body, type.end]
  return [...unsigned(code.length), ...code]
}
