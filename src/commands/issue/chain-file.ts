/** Files for chains of certificates, which take the place of such files only. */
import { readFile } from 'node:fs/promises'

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

export const chainText = (answer: { readonly certificate: string; readonly chain: readonly string[] }): string =>
  [answer.certificate, ...answer.chain].join('')

const isOfCertificates = (text: string): boolean => {
  const labels = [...text.matchAll(/-----BEGIN ([^-]*)-----/g)].map(([, label]) => label)
  return !isBinary(text) && labels.length > 0 && labels.every((label) => label === 'CERTIFICATE')
}

/** As DER is, read as Latin-1. */
export const isBinary = (text: string): boolean => /[^\t\n\r\x20-\x7e\x80-\xff]/.test(text)
