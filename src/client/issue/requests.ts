/** Files of certificate requests, and the files that their chains go to: all that is wrong with any of them is told at once. */
import { hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { access, constants, lstat, rmdir } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

import { isProblem } from '../../errors.ts'
import { bodyLimit } from '../../http/bounds.ts'
import { Failure } from '../../lib/failure.ts'
import { makeFolder } from '../../lib/fs.ts'
import { visible } from '../../lib/output.ts'
import { parsePem } from '../../x509/pem.ts'
import { faultInPlaceOf, isBinary } from './chain-file.ts'

export interface RequestFile {
  /** As the command line names it. */
  readonly file: string
  /** As it is in the file; whether it is a request is for the service to say. */
  readonly csr: string
  /** Of the request under its name: the same however its lines end, and another for the same request under another name. */
  readonly digest: string
  /** Where its chain goes. */
  readonly out: string
}

/** Throws one usage failure with everything that is wrong, so that nothing is issued in vain. Makes the folder. */
export const readRequestFiles = async (files: readonly string[], folder: string): Promise<readonly RequestFile[]> => {
  const faults: string[] = []
  const requests: RequestFile[] = []
  for (const file of files)
    try {
      requests.push(await readRequestFile(file, folder))
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      faults.push(error.message)
    }
  const opened = await openOutFolder(folder)
  faults.push(...clashes(requests), ...opened.faults)
  for (const out of new Set(requests.map(({ out }) => out))) faults.push(...(await faultsOfOut(out)))
  if (faults.length > 0) {
    await opened.undo()
    throw new Failure('usage', [...faults.map(visible), 'Nothing was sent.'].join('\n'))
  }
  return requests
}

const readRequestFile = async (file: string, folder: string): Promise<RequestFile> => {
  const csr = await readBounded(file)
  const name = basename(file).replace(/\.(csr|pem|req)$/i, '')
  if (name === '') throw new Failure('usage', `${file} has no name for its certificate before the dot.`)
  // What is no text may be a key in DER, which nobody has to see.
  if (isBinary(csr)) throw new Failure('usage', `${file} is binary, as DER is, and PEM is wanted.`)
  return { file, csr, digest: hash('sha256', `${name}\0${contentOf(file, csr)}`), out: join(folder, `${name}.pem`) }
}

/** Never more than a request may have, whatever it is that was named. */
const readBounded = async (file: string): Promise<string> => {
  const chunks: Buffer[] = []
  try {
    for await (const chunk of createReadStream(file, { end: bodyLimit })) chunks.push(chunk as Buffer)
  } catch (error) {
    throw new Failure('usage', `${file} cannot be read (${(error as NodeJS.ErrnoException).code}).`)
  }
  const octets = Buffer.concat(chunks)
  if (octets.length > bodyLimit) throw new Failure('usage', `${file} is longer than any request (${bodyLimit} octets).`)
  return octets.toString('latin1')
}

/** A private key that a pattern of names has caught by mistake stays here. */
const contentOf = (file: string, csr: string): string => {
  try {
    return parsePem(csr, 'CERTIFICATE REQUEST').toString('latin1')
  } catch (error) {
    if (isProblem(error, 'csr.key_material'))
      throw new Failure('usage', `${file} holds a private key, and is not sent.`)
    return csr
  }
}

const clashes = (requests: readonly RequestFile[]): readonly string[] =>
  [...Map.groupBy(requests, ({ out }) => out)]
    .filter(([, those]) => those.length > 1)
    .map(([out, those]) => `${those.map(({ file }) => file).join(' and ')} would be written to one file, ${out}.`)

/** Tells how to take back what was made for it, too. */
const openOutFolder = async (
  folder: string,
): Promise<{ readonly faults: readonly string[]; undo(): Promise<void> }> => {
  let made: string | undefined
  const undo = async (): Promise<void> => {
    // Nothing but empty folders goes.
    for (let path = folder; made !== undefined; path = dirname(path)) {
      await rmdir(path).catch(() => {})
      if (path === made || path === dirname(path)) return
    }
  }
  try {
    made = await makeFolder(folder)
    await access(folder, constants.W_OK | constants.X_OK)
    return { faults: [], undo }
  } catch (error) {
    return { faults: [`${folder} cannot be written (${(error as NodeJS.ErrnoException).code}).`], undo }
  }
}

const faultsOfOut = async (out: string): Promise<readonly string[]> => {
  const found = await lstat(out).catch(() => undefined)
  if (found === undefined) return []
  const fault = found.isFile() ? await faultInPlaceOf(out) : 'is there and is no file'
  return fault === undefined ? [] : [`${out} ${fault}; name another folder by --out.`]
}
