/** The ceremonies themselves: what each reads, shows, has confirmed, signs and writes, in this order. */
import { hash, randomBytes } from 'node:crypto'
import { resolve } from 'node:path'

import { newSerial } from '../../ca/issuance/serial.ts'
import {
  assertRequestFits,
  encodeCrossTbs,
  encodeIntermediateTbs,
  encodeRootCrlTbs,
  encodeRootTbs,
  Misfit,
  seal,
} from '../../ca/issuers/ceremony.ts'
import { isProblem } from '../../errors.ts'
import type { SigningKey } from '../../keys/signing-key.ts'
import { Failure } from '../../lib/failure.ts'
import { visible } from '../../lib/output.ts'
import type { KeyKind } from '../../x509/algorithms.ts'
import { type Certificate, parseCertificate, parseTbs } from '../../x509/certificate.ts'
import { parseCrl } from '../../x509/crl.ts'
import { type CertificationRequest, parseRequest, verifyPossession } from '../../x509/csr.ts'
import { parsePublicKey } from '../../x509/keys.ts'
import { encodePem, parsePem } from '../../x509/pem.ts'
import { formatSubject } from '../../x509/subject.ts'
import { formatTime } from '../../x509/time.ts'
import { assertNew } from './files.ts'
import { type CeremonyKey, keyOf, takeIt } from './key.ts'
import { constraintsOf, lastMoment, parseParameters, serialOf, spanOf, subjectOf, updatesOf } from './parameters.ts'
import type { CrlDocument, Documents, KeyDocument, SpanDocument } from './schema.ts'
import { type Line, type Outputs, openSession, type Session, type SessionDeps } from './session.ts'
import { crlLines, factLines, keyLines } from './show.ts'

export interface CeremonyOptions {
  readonly parameters: string
  /** The request, or the certificate of the other root. */
  readonly file?: string | undefined
  readonly yes: boolean
}

/** Throws Failure with a sentence for everything that stops it; what it has made until then stays, and has a transcript. */
export const runCeremony = async (
  kind: keyof Documents,
  { parameters, file = '', yes }: CeremonyOptions,
  deps: SessionDeps = processDeps,
): Promise<void> => {
  const session = await openSession(`Chancery ceremony: ${kind}`, { parameters, yes }, deps)
  try {
    const document = parseParameters(kind, session.text, parameters)
    const outputs = Object.fromEntries(
      Object.entries(document.output).map(([name, path]) => [name, session.pathOf(path)]),
    ) as Outputs
    await session.begin(outputs)
    const stopped = await acts[kind](session, document as never, resolve(file)).then(
      () => undefined,
      (error: unknown) => ({ error }),
    )
    // What stopped it is told first, whatever becomes of the transcript: its medium may be gone.
    const ended = session.end(stopped && String((stopped.error as Error).message))
    const digest = await (stopped ? ended.catch(() => undefined) : ended)
    if (digest !== undefined)
      deps.show(`The transcript is ${outputs.transcript}; the SHA-256 in its last line is\n${digest}\n`)
    if (stopped) throw stopped.error
  } catch (error) {
    throw failureOf(error)
  } finally {
    session.close()
  }
}

type Act<K extends keyof Documents> = (session: Session, document: Documents[K], file: string) => Promise<void>

const actRoot: Act<'root'> = async (session, document) => {
  const { key: where, subject, pathLength, nameConstraints, output } = document
  const key = keyOf(where, session)
  if (key.path !== undefined && where.existing !== true) {
    assertNew([key.path], takeIt)
    if (Object.values(output).some((path) => session.pathOf(path) === key.path))
      throw new Failure('usage', `${key.path} is the file of another output.`)
  }
  const input = {
    subject: subjectOf(subject),
    ...currentSpan(document.validity, session),
    ...(pathLength !== undefined && { pathLength }),
    ...(nameConstraints && { nameConstraints: constraintsOf(nameConstraints) }),
  }
  session.tell([
    ['This ceremony makes a root: its key, and the certificate that the key signs for itself.'],
    ...headLines(session, document),
    ['Key', `${where.uri}, ${kindOf(where)}${where.existing ? ', which is there already' : ', a new one'}`],
    ['Subject', formatSubject(input.subject)],
    ['Writes', Object.values(output).join(', ')],
  ])
  return withKey(key, async () => {
    const signer = await openOrCreate(key, where, session)
    const tbs = encodeRootTbs(signer, { ...input, serial: newSerial(randomBytes) })
    session.tell([['The certificate of the root:'], ...factLines(parseTbs(tbs)), ...keyLines(signer)])
    await confirmDigits(
      session,
      signer.spki,
      'the SHA-256 of the public key',
      `The key stays at ${where.uri}; with "existing: true" and another transcript, the next ceremony goes on with it.`,
    )
    const certificate = await sealCertificate(session, signer, tbs)
    await session.write(session.pathOf(output.certificate), certificate)
  })
}

const actSign: Act<'sign'> = async (session, document, file) => {
  const { key: where, request: expected, output } = document
  const subject = subjectOf(document.subject)
  const root = await readCertificate(session, session.pathOf(document.root))
  const request = await readRequest(session, file)
  assertRequestFits(request, { ...expected, subject })
  const key = keyOf(where, session)
  return withKey(key, async () => {
    const signer = await key.open()
    const tbs = encodeIntermediateTbs(signer, root.der, {
      ...belowOf(document, session),
      subject,
      spki: request.key.spki,
    })
    session.tell([
      ['This ceremony certifies an intermediate, which signs leaves and nothing below.'],
      ...headLines(session, document),
      ['Root', formatSubject(root.facts.subject)],
      ...request.dropped.map(({ field, reason }): Line => ['Left out', `${field}: ${reason}`]),
      ...(request.names.length > 0 ? [['Left out', 'names: an authority has none'] as const] : []),
      ['Writes', Object.values(output).join(', ')],
      ['The certificate of the intermediate:'],
      ...factLines(parseTbs(tbs)),
      ...keyLines(signer),
    ])
    await confirmDigits(session, request.key.spki, "the SHA-256 of the intermediate's public key")
    const certificate = await sealCertificate(session, signer, tbs)
    await session.write(session.pathOf(output.certificate), certificate)
    await session.write(session.pathOf(output.chain), certificate + encodePem('CERTIFICATE', root.der))
  })
}

const actCrl: Act<'crl'> = async (session, document) => {
  const { key: where, number, revoked, output } = document
  const root = await readCertificate(session, session.pathOf(document.root))
  const previous = document.previous === 'none' ? undefined : await readCrl(session, session.pathOf(document.previous))
  const key = keyOf(where, session)
  return withKey(key, async () => {
    const signer = await key.open()
    const input = {
      number: BigInt(number),
      ...currentUpdates(document.validity, session),
      revoked: revoked.map(revokedOf),
    }
    const tbs = encodeRootCrlTbs(signer, root.der, { ...input, ...(previous && { previous }) })
    session.tell([
      ["This ceremony issues the root's list of what it has revoked."],
      ...headLines(session, document),
      ['Root', formatSubject(root.facts.subject)],
      ['Previous', previousText(document)],
      ['Writes', Object.values(output).join(', ')],
      ...crlLines(input),
      ...keyLines(signer),
    ])
    await session.confirm({ act: 'sign it', answer: 'yes', otherwise: nothingSigned })
    // DER: what a distribution point serves (RFC 5280 4.2.1.13).
    const crl = await seal(signer, tbs)
    await session.tellMade(['Signed', `a CRL with the SHA-256 ${hash('sha256', crl)}`])
    await session.write(session.pathOf(output.crl), crl)
  })
}

const actCross: Act<'cross'> = async (session, document, file) => {
  const { key: where, output } = document
  const root = await readCertificate(session, session.pathOf(document.root))
  const other = await readCertificate(session, file)
  const digest = hash('sha256', other.der)
  const expected = document.other?.certificateSha256
  if (expected !== undefined && expected !== digest)
    throw new Misfit([`The other root is not the one of the parameters: the SHA-256 of its certificate is ${digest}.`])
  const key = keyOf(where, session)
  return withKey(key, async () => {
    const signer = await key.open()
    const tbs = encodeCrossTbs(signer, root.der, { ...belowOf(document, session), other: other.der })
    session.tell([
      ['This ceremony certifies another root, so that chains of it are accepted under this one.'],
      ...headLines(session, document),
      ['Root', formatSubject(root.facts.subject)],
      ['Other root', formatSubject(other.facts.subject)],
      ['Its certificate', `SHA-256 ${digest}`],
      ['Writes', Object.values(output).join(', ')],
      ['The cross-certificate:'],
      ...factLines(parseTbs(tbs)),
      ...keyLines(signer),
    ])
    await confirmDigits(session, other.der, "the SHA-256 of the other root's certificate")
    await session.write(session.pathOf(output.certificate), await sealCertificate(session, signer, tbs))
  })
}

const acts: { readonly [K in keyof Documents]: Act<K> } = { root: actRoot, sign: actSign, crl: actCrl, cross: actCross }

// Steps of more than one ------------------------------------------------------------------------------------------------

const headLines = (session: Session, { operators }: { readonly operators: readonly string[] }): readonly Line[] => [
  ['Operators', operators.join(', ')],
  ['Clock', `${formatTime(session.begun)}, of this machine: compare it with your own`],
]

const openOrCreate = async (key: CeremonyKey, where: KeyDocument, session: Session): Promise<SigningKey> => {
  if (where.existing === true) {
    const signer = await key.open()
    const { algorithm, bits } = parsePublicKey(signer.spki)
    const isIt = algorithm.id === where.algorithm && (where.bits === undefined || where.bits === bits)
    if (!isIt)
      throw new Misfit([`The key at ${where.uri} is of ${algorithm.id}, ${bits} bits, and not ${kindOf(where)}.`])
    return signer
  }
  await session.confirm({ act: 'make the key', answer: 'yes', otherwise: 'Nothing was made.' })
  const signer = await key.create(kindOf(where))
  await session.tellMade(['Made', `the key ${signer.id}`])
  if (key.path !== undefined) await session.recordOutput(key.path)
  return signer
}

/** The digits are what was compared by voice or on paper; typing them shows that somebody has looked. */
const confirmDigits = (session: Session, octets: Buffer, digitsOf: string, otherwise = nothingSigned): Promise<void> =>
  session.confirm({ act: 'sign it', answer: hash('sha256', octets).slice(0, 8), digitsOf, otherwise })

/** PEM; its fingerprint is what `openssl x509 -fingerprint -sha256` prints, and the parameters of others may ask for. */
const sealCertificate = async (session: Session, signer: SigningKey, tbs: Buffer): Promise<string> => {
  const der = await seal(signer, tbs)
  await session.tellMade(['Signed', `a certificate with the SHA-256 ${hash('sha256', der)}`])
  await assertReadAlike(der, signer)
  await session.tellMade(['Read again', 'by @peculiar/x509, which reads the same in it'])
  return encodePem('CERTIFICATE', der)
}

/** It will stand for years, in front of everybody's software: another than ours has to read the same. */
const assertReadAlike = async (der: Buffer, { spki }: SigningKey): Promise<void> => {
  const { secondOpinion } = await import('../../x509/library.ts')
  const differences = await secondOpinion(der, parseCertificate(der).facts, spki)
  if (differences.length > 0)
    throw new Misfit(differences.map((one) => `The certificate was thrown away, since @peculiar/x509 ${one}.`))
}

const withKey = async <T>(key: CeremonyKey, work: () => Promise<T>): Promise<T> => {
  try {
    return await work()
  } finally {
    await key.close()
  }
}

const belowOf = (
  {
    validity,
    nameConstraints,
    urls,
  }: Pick<Documents['cross'], 'nameConstraints' | 'urls'> & { readonly validity: SpanDocument },
  session: Session,
) => ({
  serial: newSerial(randomBytes),
  ...currentSpan(validity, session),
  ...(nameConstraints && { nameConstraints: constraintsOf(nameConstraints) }),
  ...(urls?.crl && { crlUrl: urls.crl }),
  ...(urls?.issuer && { issuerUrl: urls.issuer }),
})

const currentSpan = (document: SpanDocument, { begun }: Session): ReturnType<typeof spanOf> => {
  const span = spanOf(document, begun)
  assertTold(span.notAfter)
  if (span.notAfter <= begun) throw new Misfit([`The validity has ended already, at ${formatTime(span.notAfter)}.`])
  return span
}

const currentUpdates = (document: CrlDocument['validity'], { begun }: Session): ReturnType<typeof updatesOf> => {
  const updates = updatesOf(document, begun)
  assertTold(updates.nextUpdate)
  if (updates.nextUpdate <= begun)
    throw new Misfit([`The CRL would be out of date already, since ${formatTime(updates.nextUpdate)}.`])
  return updates
}

/** Years have four digits in certificates. */
const assertTold = (end: Date): void => {
  if (end.getTime() > lastMoment)
    throw new Misfit([`The validity would end after ${formatTime(new Date(lastMoment))}.`])
}

const kindOf = ({ algorithm = 'ec-p384', bits }: KeyDocument): KeyKind =>
  bits === undefined ? algorithm : (`rsa-${bits}` as KeyKind)

const revokedOf = ({ serial, at, reason, invalidSince }: CrlDocument['revoked'][number]) => ({
  serial: serialOf(serial),
  revokedAt: new Date(at),
  reason,
  ...(invalidSince !== undefined && { invalidSince: new Date(invalidSince) }),
})

// Files -----------------------------------------------------------------------------------------------------------------

const readCertificate = async (session: Session, path: string): Promise<Certificate & { readonly der: Buffer }> => {
  const octets = await session.read(path)
  return telling(path, () => {
    const der = parsePem(octets, 'CERTIFICATE')
    return { ...parseCertificate(der), der }
  })
}

const readRequest = async (session: Session, path: string): Promise<CertificationRequest> => {
  const octets = await session.read(path)
  const request = telling(path, () => parseRequest(parsePem(octets, 'CERTIFICATE REQUEST')))
  const proof = await verifyPossession(request).catch((error: Error) => error)
  if (proof) throw new Failure('refused', `${path}: ${isProblem(proof) ? proof.detail : proof.message}.`)
  return request
}

/** What was revoked before is lost without a word where nothing is compared. */
const previousText = ({ previous, number }: CrlDocument): string =>
  previous === 'none' && number > 1
    ? `none, though this is number ${number}: what lists before it have revoked is valid again unless it is listed here`
    : previous

const readCrl = async (session: Session, path: string): Promise<Buffer> => {
  const octets = await session.read(path)
  return telling(path, () => {
    // As `crl import` takes it: DER, or PEM that another tool has made of it.
    const der = octets[0] === 0x30 ? octets : parsePem(octets, 'X509 CRL')
    parseCrl(der)
    return der
  })
}

const telling = <T>(path: string, work: () => T): T => {
  try {
    return work()
  } catch (error) {
    if (!isProblem(error)) throw error
    // It never left this machine, and is a root's perhaps: nobody is told that it was exposed.
    const isKey = error.code === 'csr.key_material'
    const why = isKey ? 'it holds a private key, which was only read here: name another file' : visible(error.detail)
    throw new Failure('refused', `${path}: ${why}.`)
  }
}

const failureOf = (error: unknown): unknown => {
  if (error instanceof Misfit) return new Failure('refused', error.reasons.map(visible).join('\n'))
  if (isProblem(error)) return new Failure('refused', `${visible(error.detail)}.`)
  return error
}

const nothingSigned = 'Nothing was signed, and nothing was written.'
const processDeps: SessionDeps = {
  clock: () => new Date(),
  input: process.stdin,
  show: (text) => process.stdout.write(text),
  onBreak: (tell) => {
    // Once: whoever says it again does not want to wait for the key, and the transcript is true at any moment.
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => tell(signal))
    process.stdout.on('error', ({ code }: NodeJS.ErrnoException) => tell(`a screen that is gone (${code})`))
    process.stderr.on('error', () => {})
  },
}
