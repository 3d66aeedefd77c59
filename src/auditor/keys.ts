/** The keys by which a roll is known: what an auditor has from somewhere else than the roll itself. */

import { Failure } from '../lib/failure.ts'
import { readGivenText } from '../lib/input-files.ts'
import { sha256 } from '../lib/sha256.ts'
import { isRollFault } from '../tlog/fault.ts'
import { encodeVerifierKey, parseVerifierKey, type VerifierKey } from '../tlog/note.ts'

export interface RollKeys {
  readonly roll: readonly VerifierKey[]
  /** Whose cosignatures are told of. */
  readonly witnesses: readonly VerifierKey[]
}

/** Each is a key, or a file with one on each line. Throws a usage failure. */
export const readKeys = async (given: readonly string[]): Promise<RollKeys> => {
  const each: VerifierKey[] = []
  for (const one of given)
    each.push(...(/^[^+\s]+\+[0-9a-f]{8}\+\S+$/.test(one) ? [parse(one)] : await readFileOf(one)))
  // Of one that is given twice a note has one signature.
  const keys = [...new Map(each.map((key) => [encodeVerifierKey(key), key])).values()]
  const roll = keys.filter(({ type }) => type === 'ed25519')
  if (roll.length === 0) throw new Failure('usage', noneText(given, keys))
  return { roll, witnesses: keys.filter(({ type }) => type !== 'ed25519') }
}

/** What is there instead, and how to come by one. */
const noneText = (given: readonly string[], keys: readonly VerifierKey[]): string => {
  const found =
    given.length === 0
      ? 'No key of the roll is given'
      : keys.length === 0
        ? `There is no key in ${given.join(', ')}`
        : `There are keys of witnesses only, and none of the roll, in ${given.join(', ')}`
  return `${found}: --key takes one, or a file with it, as "chancery roll key > roll.key" makes it once.`
}

const readFileOf = async (path: string): Promise<VerifierKey[]> => {
  const text = await readGivenText(path, 'The key ')
  return text
    .split('\n')
    .map((line, i) => ({ text: line.trim(), place: `Line ${i + 1} of ${path}` }))
    .filter(({ text: line }) => line !== '' && !line.startsWith('#'))
    .map(({ text: line, place }) => parse(line, place))
}

/** What stands in a file is not shown: it may be another one, with a secret. */
const parse = (text: string, place = text): VerifierKey => {
  try {
    return parseVerifierKey(text, sha256)
  } catch (error) {
    if (!isRollFault(error)) throw error
    throw new Failure('usage', `${place} is no verifier key: ${error.detail}.`)
  }
}
