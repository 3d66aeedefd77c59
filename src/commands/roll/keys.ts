/** The keys by which a roll is known: what an auditor has from somewhere else than the roll itself. */
import { readFile } from 'node:fs/promises'

import { isRollFault } from '../../roll/fault.ts'
import { parseVerifierKey, type VerifierKey } from '../../roll/note.ts'
import { sha256 } from '../../sha256.ts'
import { Failure } from '../failure.ts'

export interface RollKeys {
  readonly roll: readonly VerifierKey[]
  /** Whose cosignatures are told of. */
  readonly witnesses: readonly VerifierKey[]
}

/** Each is a key, or a file with one on each line. Throws a usage failure. */
export const readKeys = async (given: readonly string[]): Promise<RollKeys> => {
  const keys: VerifierKey[] = []
  for (const one of given)
    keys.push(...(/^[^+\s]+\+[0-9a-f]{8}\+\S+$/.test(one) ? [parse(one)] : await readFileOf(one)))
  const roll = keys.filter(({ type }) => type === 'ed25519')
  if (roll.length === 0) throw new Failure('usage', 'No key of a roll is given: see --key.')
  return { roll, witnesses: keys.filter(({ type }) => type !== 'ed25519') }
}

const readFileOf = async (path: string): Promise<VerifierKey[]> => {
  const text = await readFile(path, 'utf8').catch((error: Error) => {
    throw new Failure('usage', `The key ${path} cannot be read: ${error.message}`)
  })
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map(parse)
}

const parse = (text: string): VerifierKey => {
  try {
    return parseVerifierKey(text, sha256)
  } catch (error) {
    if (!isRollFault(error)) throw error
    throw new Failure('usage', `${text} is no verifier key: ${error.detail}.`)
  }
}
