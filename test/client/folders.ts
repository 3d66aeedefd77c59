/** What a folder of a certificate shows, as a server would read it. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { mkdtemp, readFile, readlink, realpath, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { fileNames } from '../../src/client/issue/folder.ts'

interface Teardown {
  teardown(close: () => Promise<void>): void
}

export const newFolder = async (t: Teardown, parent = tmpdir()): Promise<string> => {
  const folder = await mkdtemp(join(parent, 'chancery-client-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

export interface Shown {
  readonly serial: string
  readonly certificate: X509Certificate
  readonly files: Readonly<Record<string, string>>
}

/**
 * Undefined where there is nothing at all. Throws where some files are there and others not, or where they do not belong
 * together: what must never be seen.
 */
export const readShown = async (folder: string): Promise<Shown | undefined> => {
  // Once, as a reader that wants all of one moment does it.
  const at = await realpath(join(folder, '.chancery', 'current')).catch(() => undefined)
  if (at === undefined) {
    const files = await Promise.all(fileNames.map((name) => readFile(join(folder, name)).catch(() => undefined)))
    if (files.every((file) => file === undefined)) return undefined
    if (await readlink(join(folder, '.chancery', 'current')).catch(() => undefined)) return readShown(folder)
    throw new Error('some files are there without the others')
  }
  const pairs = await Promise.all(
    fileNames.map(async (name) => [name, await readFile(join(at, name), 'utf8')] as const),
  )
  const files = Object.fromEntries(pairs)
  const certificate = new X509Certificate(files['certificate.pem'] ?? '')
  if (!certificate.checkPrivateKey(createPrivateKey(files['key.pem'] ?? ''))) throw new Error('the key is another one')
  if (files['fullchain.pem'] !== `${files['certificate.pem']}${files['chain.pem']}`) throw new Error('another chain')
  return { serial: certificate.serialNumber.toLowerCase(), certificate, files }
}
