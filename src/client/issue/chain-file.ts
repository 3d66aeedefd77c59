/** Files for chains of certificates, which take the place of such files only. */
import { lstat, readFile, realpath, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'

import { syncFolder } from '../../lib/fs.ts'
import { replaceFile, sweepDrafts } from './replace.ts'

/**
 * What keeps a chain from taking the place of this file: a key, or the request itself, is written over by nothing. Undefined
 * where nothing does; else a clause about the file.
 */
export const faultInPlaceOf = async (file: string): Promise<string | undefined> => {
  try {
    const text = await readFile(file, 'latin1')
    if (text.trim() === '' || isOfCertificates(text)) return undefined
    return 'is there and is not of PEM certificates alone'
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return code === 'ENOENT' ? undefined : `is there and cannot be read (${code})`
  }
}

/**
 * Whole, or what is there stays: a service may read it at any time. Behind a link, where it leads; whose it is and who may read it
 * stays as it is.
 */
export const replaceChain = async (file: string, chain: string): Promise<void> => {
  const path = await realpath(file).catch(() => file)
  const there = await lstat(path).catch(() => undefined)
  // A link that leads nowhere has nothing to lose.
  if (there?.isSymbolicLink()) return writeFile(path, chain, { flush: true })
  try {
    await replaceFile(path, chain, there)
    await syncFolder(dirname(path))
  } catch (error) {
    if (there === undefined || !inPlace.has((error as NodeJS.ErrnoException).code ?? '')) throw error
    await writeFile(path, chain, { flush: true })
  }
}

/** What a command that was killed has left half made of such files, all in one folder, or of what is kept beside them. */
export const sweepChains = async (files: readonly string[]): Promise<void> => {
  const [first] = files
  if (first === undefined) return
  await sweepDrafts([...files, ...files.map(questionOf)])
  // Behind a link, what takes its place is made where it leads.
  if (files.length === 1) await sweepDrafts([await realpath(first).catch(() => first)])
}

/** Where a question is kept until its answer is in this file. */
export const questionOf = (file: string): string => `${file}.pending.json`

export const chainText = (answer: { readonly certificate: string; readonly chain: readonly string[] }): string =>
  [answer.certificate, ...answer.chain].join('')

const isOfCertificates = (text: string): boolean => {
  const labels = [...text.matchAll(/-----BEGIN ([^-]*)-----/g)].map(([, label]) => label)
  return !isBinary(text) && labels.length > 0 && labels.every((label) => label === 'CERTIFICATE')
}

/** As DER is, read as Latin-1. */
export const isBinary = (text: string): boolean => /[^\t\n\r\x20-\x7e\x80-\xff]/.test(text)

/**
 * By which a file says that it can have no other in its place: it is mounted by itself, or only itself may be written, as in a
 * folder of somebody else's, or the other could not be whose it is.
 */
const inPlace: ReadonlySet<string> = new Set(['EBUSY', 'EACCES', 'EPERM', 'EROFS'])
