/** `chancery issue --csr`: a certificate for a request that was made elsewhere, whose key is not here. */
import { hash, randomUUID } from 'node:crypto'
import { access, constants, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'

import { isProblem } from '../../errors.ts'
import { writePrivateFile } from '../../keys/private-file.ts'
import { canonicalJson } from '../../lib/canonical-json.ts'
import { exitCodes, Failure, finalKinds } from '../../lib/failure.ts'
import { type Output, visible } from '../../lib/output.ts'
import { parseRequest } from '../../x509/csr.ts'
import { hasBlock, parsePem } from '../../x509/pem.ts'
import type { Client } from '../rest.ts'
import { Awaited, askedAnew, assertAnswered, theSame, untilDecided } from './approval.ts'
import { chainText, faultInPlaceOf, questionOf, replaceChain, sweepChains } from './chain-file.ts'
import { assertOfPublicKey, type IssuedAnswer, readIssued } from './issued.ts'

export interface RequestBody {
  /** PEM. */
  readonly csr: string
  readonly profile: string
}

interface ForRequest {
  readonly client: Client
  readonly out: Output
  /** Of who calls, where it keeps one. */
  readonly idempotencyKey: string | undefined
  /** For the chain; printed where there is none. */
  readonly file: string | undefined
  /** For people, where they have to approve it. */
  readonly waits: boolean
}

export const issueFor = async (body: RequestBody, options: ForRequest): Promise<void> => {
  const { client, out, file } = options
  const isKept = file !== undefined && (await isFileToBe(file))
  if (isKept) await sweepChains([file])
  const question = await openQuestion(isKept ? questionOf(file) : undefined, options, digestOf(body, client))
  const answer = await ask(body, question, options).catch(async (error: unknown) => {
    if (!(error instanceof Failure)) throw error
    if (finalKinds.has(error.kind)) await question.forget()
    throw withKey(askedAnew(error, question.anew), question)
  })
  assertFor(body, answer)
  const chain = chainText(answer)
  for (const { field, reason } of answer.notes) process.stderr.write(`note: ${visible(`${field} ${reason}`)}\n`)
  if (file === undefined) return out.show(answer, chain)
  await (isKept ? replaceChain(file, chain) : writeFile(file, chain)).catch((error: NodeJS.ErrnoException) => {
    throw new Failure(
      'usage',
      `${file} cannot be written (${error.code}); ${question.again} gets the same certificate.`,
    )
  })
  await question.forget()
  out.show(answer, `${answer.serial}, valid until ${answer.notAfter}, is in ${file}.`)
}

/** Waits for people, where they must approve it. */
const ask = async (
  body: RequestBody,
  { idempotencyKey, again }: Question,
  { client, waits }: ForRequest,
): Promise<IssuedAnswer> => {
  const call = { headers: { 'idempotency-key': idempotencyKey }, body }
  const tell = (text: string): void => void process.stderr.write(text)
  for (;;) {
    try {
      return readIssued(assertAnswered(await client.call('POST', '/v1/certificates', call)))
    } catch (error) {
      if (!(error instanceof Awaited && waits)) throw error
      await untilDecided(error.request, { client, tell, again })
    }
  }
}

interface Question {
  readonly idempotencyKey: string
  /** How the same question is asked again. */
  readonly again: string
  /** How another one is asked, once this one has ended. */
  readonly anew: string
  /** Whether the same command does so by itself. */
  readonly isKept: boolean
  /** It has its answer. */
  forget(): Promise<void>
}

/** On the disk before it is asked, where there is a place for it: the same command finds the same certificate, or request. */
const openQuestion = async (
  kept: string | undefined,
  { idempotencyKey: said }: ForRequest,
  digest: string,
): Promise<Question> => {
  if (said !== undefined)
    return { idempotencyKey: said, again: theSame, anew: withAnother, isKept: true, forget: async () => {} }
  if (kept === undefined) {
    const idempotencyKey = randomUUID()
    const again = `the same command with --idempotency-key ${idempotencyKey}`
    return { idempotencyKey, again, anew: theSame, isKept: false, forget: async () => {} }
  }
  const found = parseKept(await readFile(kept, 'utf8').catch(() => ''))
  const idempotencyKey = found?.digest === digest ? found.idempotencyKey : randomUUID()
  if (found?.idempotencyKey !== idempotencyKey)
    await writePrivateFile(kept, JSON.stringify({ digest, idempotencyKey })).catch((error: NodeJS.ErrnoException) => {
      throw new Failure('usage', `${kept} cannot be written (${error.code}); nothing was issued.`)
    })
  return { idempotencyKey, again: theSame, anew: theSame, isKept: true, forget: () => rm(kept, { force: true }) }
}

const parseKept = (text: string): { readonly digest: string; readonly idempotencyKey: string } | undefined => {
  try {
    const { digest, idempotencyKey } = JSON.parse(text)
    return typeof digest === 'string' && typeof idempotencyKey === 'string' ? { digest, idempotencyKey } : undefined
  } catch {
    return undefined
  }
}

const digestOf = (body: RequestBody, { origin }: Client): string => hash('sha256', canonicalJson({ origin, ...body }))

/** Before anything is issued: a certificate that cannot be written would be lost. False for a pipe or a device. */
const isFileToBe = async (file: string): Promise<boolean> => {
  try {
    await access(dirname(file), constants.W_OK)
  } catch (error) {
    throw new Failure(
      'usage',
      `${file} cannot be written (${(error as NodeJS.ErrnoException).code}); nothing was issued.`,
    )
  }
  const found = await stat(file).catch(() => undefined)
  if (found?.isDirectory())
    throw new Failure('usage', `${file} is a folder; name a file for the chain by --out. Nothing was issued.`)
  const isFile = found?.isFile() ?? true
  const fault = isFile ? await faultInPlaceOf(file) : undefined
  if (fault !== undefined)
    throw new Failure('usage', `${file} ${fault}; nothing was issued. Name another file by --out.`)
  return isFile
}

/** Before anything is sent: what is named by mistake may be a key, and a key that somebody else has seen is none. */
export const assertNoKey = (text: string, file: string): void => {
  if (text.trim() === '') throw new Failure('usage', `${file} is empty; nothing was sent. Give a request by --csr.`)
  const octets = Buffer.from(text, 'latin1')
  for (const read of [() => parsePem(text, 'CERTIFICATE REQUEST'), () => octets])
    try {
      parseRequest(read())
    } catch (error) {
      if (!isProblem(error) || error.code !== 'csr.key_material') continue
      throw new Failure('usage', `${file} holds a private key; nothing was sent. Give the request alone by --csr.`)
    }
  if (!hasBlock(text))
    throw new Failure(
      'usage',
      `${file} is not in PEM, and may be a key; nothing was sent. Give a request in PEM by --csr.`,
    )
}

/** Throws `failed` where the certificate is for another key. */
export const assertFor = ({ csr }: Pick<RequestBody, 'csr'>, answer: IssuedAnswer): void => {
  const { key } = parseRequest(parsePem(csr, 'CERTIFICATE REQUEST'))
  assertOfPublicKey(answer, key.spki)
}

/** What may have been issued is found again under the same key. */
const withKey = (error: Failure, { isKept, idempotencyKey }: Question): Failure => {
  if (isKept || error.exitCode !== exitCodes.later) return error
  const hint = `To try again without a second certificate: --idempotency-key ${idempotencyKey}`
  return new Failure('later', `${error.message}\n${hint}`, error.problem)
}

const withAnother = 'the same command with another --idempotency-key'
