/** Keys that nobody gets a certificate for, from files that the operator names; read once, at the start. */
import { readFile } from 'node:fs/promises'

import { parseBlockList } from '../x509/block-list.ts'
import type { KeyBlockList } from '../x509/keys.ts'

export interface BlockListFiles {
  /** badkeys' `blocklist.dat`: the keys of Debian's broken generator and other collections. */
  readonly badkeys?: string
  /** SHA-256 of SubjectPublicKeyInfos in hexadecimal, one a line; `#` begins a comment. */
  readonly spki?: string
}

/** Throws a sentence for a file that is missing or is no such list: a gate that silently stands open is none. */
export const loadBlockLists = async ({ badkeys, spki }: BlockListFiles): Promise<KeyBlockList> => {
  const lists: KeyBlockList[] = []
  if (badkeys !== undefined) lists.push(await load(badkeys, (data) => parseBlockList(data)))
  if (spki !== undefined) lists.push(await load(spki, (data) => parseSpkiList(data.toString('utf8'))))
  return (sha256, key) => lists.some((isBlocked) => isBlocked(sha256, key))
}

const load = async (path: string, parse: (data: Buffer) => KeyBlockList): Promise<KeyBlockList> => {
  try {
    return parse(await readFile(path))
  } catch (cause) {
    throw new Error(`The list of blocked keys ${path} cannot be used: ${(cause as Error).message}.`, { cause })
  }
}

const parseSpkiList = (text: string): KeyBlockList => {
  const blocked = new Set<string>()
  for (const [i, line] of text.split(/\r?\n/).entries()) {
    const entry = line.replace(/#.*/, '').trim().toLowerCase()
    if (entry === '') continue
    if (!/^[0-9a-f]{64}$/.test(entry)) throw new RangeError(`line ${i + 1} is not a SHA-256 in hexadecimal`)
    blocked.add(entry)
  }
  return (sha256) => blocked.has(sha256)
}
