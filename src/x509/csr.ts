import { createPublicKey, verify } from 'node:crypto'

import { Problem } from '../errors.ts'
import { readSignatureAlgorithm, type SignatureAlgorithm } from './algorithms.ts'
import { DerReader, derProblem, formatOid, newBudget, oidKey, tags, type WalkBudget, walk } from './der.ts'
import { readEcdsaSignature } from './ecdsa.ts'
import {
  anyExtendedKeyUsage,
  type ExtensionName,
  type KeyUsage,
  type ReadExtension,
  readBasicConstraints,
  readExtendedKeyUsage,
  readExtensions,
  readKeyUsage,
} from './extensions.ts'
import { type KeyBlockList, type PublicKey, readPublicKey } from './keys.ts'
import { type Name, readGeneralNames } from './names.ts'
import { readSubject, type Subject } from './subject.ts'

/** Something that the request carried and the certificate will not, with the reason. Never its value. */
export interface Dropped {
  readonly field: string
  readonly reason: string
}

/** A certificate request (PKCS#10, RFC 2986) that is strict DER, in shape, with a sound key and well-formed names. */
export interface CertificationRequest {
  readonly der: Buffer
  readonly subject: Subject
  readonly key: PublicKey
  /** From the subjectAltName extension, in order; empty when there is none. */
  readonly names: readonly Name[]
  readonly keyUsage?: readonly KeyUsage[]
  /** Names where known ('serverAuth'), else dotted OIDs. */
  readonly extendedKeyUsage?: readonly string[]
  readonly dropped: readonly Dropped[]
  readonly signatureAlgorithm: SignatureAlgorithm
  /** The octets that are signed: CertificationRequestInfo. */
  readonly tbs: Buffer
  readonly signature: Buffer
}

export interface RequestOptions {
  readonly blocked?: KeyBlockList
}

/**
 * Reads a request in the order in which trust grows: size, DER, shape, key, signature algorithm, subject, extensions.
 * Synchronous and bounded: P-256 takes about 9 µs, RSA-2048 about 30. Throws csr.*, key.*, subject.*, san.*, ext.* and nothing else.
 * The buffer is kept, not copied: it must not change afterwards. Possession is proved by `verifyPossession`.
 */
export const parseRequest = (der: Buffer, options: RequestOptions = {}): CertificationRequest => {
  const shape = readShape(der)
  const { tbs, signature } = shape
  const key = readPublicKey(shape.spki, options.blocked)
  const signatureAlgorithm = matchingAlgorithm(shape.algorithm, key)
  if (key.algorithm.curve !== undefined) readEcdsaSignature(shape.signatureSlice, key.algorithm.curve.order)
  const subject = readSubject(shape.subject)
  const asked = readAsked(shape.attributes, shape.budget)
  return { der, tbs, signature, key, signatureAlgorithm, subject, ...asked }
}

/** A signature to be checked: over these octets, by the key of this SPKI, which has passed the key gate. */
export interface SignatureCheck {
  readonly spki: Buffer
  readonly message: Buffer
  readonly signature: Buffer
  readonly algorithm: SignatureAlgorithm
  /** The key comes again and again (an issuer's): keep it imported. */
  readonly keep?: boolean
}

/** Whether a signature holds, decided elsewhere than on the thread that asks. */
export type CheckSignature = (check: SignatureCheck) => Promise<boolean>

/** Proves that the request was signed by the key in it. Throws csr.pop. */
export const verifyPossession = async (
  csr: CertificationRequest,
  check: CheckSignature = checkOnThreadPool,
): Promise<void> => {
  const { key, tbs: message, signature, signatureAlgorithm: algorithm } = csr
  if (await check({ spki: key.spki, message, signature, algorithm })) return
  throw new Problem('csr.pop', 'the signature does not verify with the key of the request')
}

const checkOnThreadPool: CheckSignature = ({ spki, message, signature, algorithm }) =>
  new Promise((resolve) => {
    const key = createPublicKey({ key: spki, format: 'der', type: 'spki' })
    const input = { key, ...algorithm.signOptions }
    verify(algorithm.hash, message, input, signature, (error, valid) => resolve(error === null && valid))
  })

interface Shape {
  readonly tbs: Buffer
  readonly subject: DerReader
  readonly spki: DerReader
  readonly attributes: readonly RequestAttribute[]
  readonly algorithm: DerReader
  readonly signature: Buffer
  readonly signatureSlice: DerReader
  readonly budget: WalkBudget
}

interface RequestAttribute {
  readonly key: string
  readonly at: number
  /** The contents of the SET of values. */
  readonly values: DerReader
}

/** CertificationRequest and CertificationRequestInfo, RFC 2986 4. */
const readShape = (der: Buffer): Shape => {
  if (der.length > maxOctets) throw new Problem('csr.too_large', `a request has at most ${maxOctets} octets of DER`)
  const outer = new DerReader(der, 'csr.der')
  const budget = newBudget()
  walk(outer, budget)
  assertNoPrivateKey(der)
  const request = outer.read(tags.sequence, 'CertificationRequest')
  const tbs = request.window(tags.sequence, 'CertificationRequestInfo')
  const algorithm = request.window(tags.sequence, 'signatureAlgorithm')
  if (request.tag !== tags.bitString) throw request.problem('the signature is missing or no BIT STRING')
  const signatureSlice = request.as('csr.pop').bits('signature')
  if (signatureSlice.end !== request.end)
    throw derProblem('csr.der', 'there is more in CertificationRequest than belongs there', signatureSlice.end)

  const info = tbs.as('csr.der').read(tags.sequence, 'CertificationRequestInfo')
  const version = info.read(tags.integer, 'version')
  if (version.length !== 1 || der[version.start] !== 0)
    throw derProblem('csr.version', 'the version is not 0', version.start)
  const subject = info.window(tags.sequence, 'subject')
  const spki = info.window(tags.sequence, 'subjectPKInfo')
  if (info.tag !== 0xa0) throw derProblem('csr.attribute', 'attributes [0] is missing', info.at)
  const attributes = readAttributes(info.read(0xa0, 'attributes').as('csr.attribute'))
  info.finish('CertificationRequestInfo')
  return {
    tbs: tbs.octets,
    algorithm,
    signature: signatureSlice.octets,
    signatureSlice,
    subject,
    spki,
    attributes,
    budget,
  }
}

/** Attributes ::= SET OF Attribute. Sorted or not: many clients don't (X.690 11.6 binds who signs, and nobody is fooled). */
const readAttributes = (list: DerReader): RequestAttribute[] => {
  const attributes: RequestAttribute[] = []
  while (!list.done) {
    const at = list.at
    if (attributes.length === maxAttributes) throw list.problem(`there are more than ${maxAttributes} attributes`)
    const attribute = list.read(tags.sequence, 'Attribute')
    const key = attribute.oid('the type of an attribute')
    const values = attribute.read(tags.set, 'the values of an attribute')
    attribute.finish('Attribute')
    attributes.push({ key, at, values })
  }
  assertAttributes(attributes)
  return attributes
}

/** Which attributes may occur once, with one value (RFC 2985 5.4), and which not beside each other. */
const assertAttributes = (attributes: readonly RequestAttribute[]): void => {
  for (const [i, { key, at, values }] of attributes.entries()) {
    const name = attributeNames.get(key)
    if (name === undefined || !singleValued.includes(name)) continue
    if (attributes.findIndex((other) => other.key === key) !== i)
      throw derProblem('csr.attribute', `${name} occurs twice`, at)
    const rest = new DerReader(values.buffer, values.code, values.start, values.end)
    if (rest.done) throw derProblem('csr.attribute', `${name} has no value`, at)
    rest.readAny(name)
    if (!rest.done) throw derProblem('csr.attribute', `${name} has more than one value`, at)
  }
  const microsoft = attributes.find(({ key }) => attributeNames.get(key) === 'microsoftExtensions')
  if (microsoft !== undefined && attributes.some(({ key }) => attributeNames.get(key) === 'extensionRequest')) {
    throw derProblem('csr.attribute', 'extensions are requested in two attributes', microsoft.at)
  }
}

type Asked = Pick<CertificationRequest, 'names' | 'keyUsage' | 'extendedKeyUsage' | 'dropped'>
type Draft = { -readonly [Member in keyof Asked]: Asked[Member] } & { dropped: Dropped[] }

const readAsked = (attributes: readonly RequestAttribute[], budget: WalkBudget): Asked => {
  const draft: Draft = { names: [], dropped: [] }
  for (const { key, values } of attributes) {
    const name = attributeNames.get(key)
    if (name === 'extensionRequest')
      for (const extension of readExtensions(values.as('csr.der'), budget)) readExtension(draft, extension)
    else
      draft.dropped.push({
        field: `/attributes/${name ?? formatOid(key)}`,
        reason:
          name === 'microsoftExtensions'
            ? 'names and usages are read from extensionRequest (1.2.840.113549.1.9.14), not from this attribute: ask for them there'
            : 'attributes of a request do not go into certificates',
      })
  }
  return draft
}

/** What each known extension does when it is asked for. Everything else: refused when critical, else dropped. */
const readExtension = (draft: Draft, { oid, name, critical, value }: ReadExtension): void => {
  const read = name === undefined ? undefined : readers[name]
  if (read !== undefined) {
    read(draft, value)
    return
  }
  const title = name ?? oid
  if (critical)
    throw derProblem(
      'ext.forbidden',
      `${title} is asked for as critical, and certificates will not have it as asked`,
      value.start,
    )
  draft.dropped.push({
    field: `/extensions/${title}`,
    reason: name === undefined ? 'unknown extensions are not copied' : 'the authority decides this extension',
  })
}

const forbid =
  (name: ExtensionName) =>
  (_draft: Draft, value: DerReader): void => {
    throw derProblem('ext.forbidden', `${name} may not be asked for`, value.start)
  }

const readers: Partial<Record<ExtensionName, (draft: Draft, value: DerReader) => void>> = {
  subjectAltName: (draft, value) => {
    draft.names = readGeneralNames(value)
  },
  keyUsage: (draft, value) => {
    draft.keyUsage = readKeyUsage(value)
  },
  extendedKeyUsage: (draft, value) => {
    const usages = readExtendedKeyUsage(value)
    if (usages.includes(anyExtendedKeyUsage))
      throw derProblem('ext.forbidden', 'anyExtendedKeyUsage may not be asked for', value.start)
    draft.extendedKeyUsage = usages
  },
  basicConstraints: (_draft, value) => {
    const { ca, pathLength } = readBasicConstraints(value)
    if (ca || pathLength !== undefined)
      throw derProblem('ext.forbidden', 'a certificate authority may not be asked for', value.start)
  },
  nameConstraints: forbid('nameConstraints'),
  precertificatePoison: forbid('precertificatePoison'),
}

const matchingAlgorithm = (reader: DerReader, key: PublicKey): SignatureAlgorithm => {
  const algorithm = readSignatureAlgorithm(reader.as('csr.sig_alg'))
  if (!algorithm.keys.includes(key.algorithm.id))
    throw new Problem('csr.sig_alg', `${algorithm.id} does not go with a key of ${key.algorithm.title}`)
  return algorithm
}

/** PKCS#1, SEC 1 and PKCS#8 keys are a SEQUENCE that begins with a version of 0 or 1; a request never is. */
const assertNoPrivateKey = (der: Buffer): void => {
  const outer = new DerReader(der, 'csr.der').read(tags.sequence, 'CertificationRequest')
  if (outer.tag !== tags.integer) return
  const version = outer.read(tags.integer, 'version')
  if (version.length === 1 && (der[version.start] as number) < 2)
    throw new Problem('csr.key_material', 'the octets are a private key: treat it as exposed')
}

const maxOctets = 16 * 1024
const maxAttributes = 32
const attributeNames = new Map(
  Object.entries({
    extensionRequest: '1.2.840.113549.1.9.14',
    challengePassword: '1.2.840.113549.1.9.7',
    unstructuredName: '1.2.840.113549.1.9.2',
    microsoftExtensions: '1.3.6.1.4.1.311.2.1.14',
  }).map(([name, oid]) => [oidKey(oid), name]),
)
const singleValued = ['extensionRequest', 'challengePassword', 'microsoftExtensions']
