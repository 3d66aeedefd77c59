/**
 * What opensc's pkcs11-spy wrote about signatures. It shares no code with `src`.
 *
 * A call is written bit by bit, into a buffer of its process that leaves when a call returns: calls of several threads
 * are mixed within their lines, and what a kill -9 found in the buffer is missing. Whole are only a call's number with
 * its name, its "Returned", and each line of a dump. So the log is cut where no call is under way, mostly into single
 * calls, and of each piece it is asked which of the inputs that may be are in it, and how often.
 */
export interface Piece {
  /** Functions that were called, in order. */
  readonly calls: readonly string[]
  /** Lines of all dumps, hexadecimal, with how often each was there at which offset. */
  readonly lines: ReadonlyMap<string, number>
  /** The process ended before the last call did. */
  readonly isTorn: boolean
  readonly text: string
}

export const parseSpyLog = (text: string): readonly Piece[] => {
  const pieces: Piece[] = []
  let calls: string[] = []
  let lines = new Map<string, number>()
  let under = 0
  let begin = 0
  const cut = (end: number): void => {
    if (calls.length > 0) pieces.push({ calls, lines, isTorn: under > 0, text: text.slice(begin, end) })
    calls = []
    lines = new Map()
    under = 0
    begin = end
  }
  for (const { 0: found, 1: called, 2: offset, 3: hex, index } of text.matchAll(token)) {
    if (called !== undefined) {
      calls.push(called)
      under += 1
    } else if (offset !== undefined && hex !== undefined) {
      const line = lineAt(Number.parseInt(offset, 16), hex.replaceAll(' ', '').toLowerCase())
      lines.set(line, (lines.get(line) ?? 0) + 1)
    } else if (found.startsWith('Returned')) {
      under -= 1
      if (under <= 0) cut(index + found.length)
    } else cut(index)
  }
  cut(text.length)
  return pieces
}

/** How often an input, hexadecimal, was dumped in a piece. */
export const timesIn = ({ lines }: Piece, input: string): number =>
  Math.min(...linesOf(input).map((line) => lines.get(line) ?? 0))

/** Each input is looked for in every piece, so how it is dumped is kept. */
const dumped = new Map<string, readonly string[]>()

const linesOf = (input: string): readonly string[] => {
  const kept = dumped.get(input)
  if (kept) return kept
  const lines = Array.from({ length: Math.ceil(input.length / 32) }, (_, i) =>
    lineAt(i * 16, input.slice(i * 32, i * 32 + 32)),
  )
  dumped.set(input, lines)
  return lines
}

const lineAt = (offset: number, hex: string): string => `${offset} ${hex}`

/** A call begins; a line of a dump; a call ends; a process begins. */
const token =
  /(?<=\n)\d+: (C_\w+)(?=\n)|(?<=\n) {4}([0-9A-F]{8}) {2}((?:[0-9A-F]{2} ){1,16})|Returned: +\d+ \w+(?=\n)|\*{15} OpenSC PKCS#11 spy \*+/g
