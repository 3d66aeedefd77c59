import {
  type DerReader,
  derProblem,
  encodeDer,
  encodeOid,
  encodeSequence,
  formatOid,
  oidKey,
  shownOid,
  tags,
  type WalkBudget,
  walk,
} from './der.ts'

/** The bits of KeyUsage in their order (RFC 5280 4.2.1.3). */
export const keyUsages = [
  'digitalSignature',
  'contentCommitment',
  'keyEncipherment',
  'dataEncipherment',
  'keyAgreement',
  'keyCertSign',
  'cRLSign',
  'encipherOnly',
  'decipherOnly',
] as const

export type KeyUsage = (typeof keyUsages)[number]

/** Extended key usages that have a name here; others are written as dotted OIDs. */
export const extendedKeyUsages = {
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
  codeSigning: '1.3.6.1.5.5.7.3.3',
  emailProtection: '1.3.6.1.5.5.7.3.4',
  timeStamping: '1.3.6.1.5.5.7.3.8',
  OCSPSigning: '1.3.6.1.5.5.7.3.9',
  ipsecIKE: '1.3.6.1.5.5.7.3.17',
  documentSigning: '1.3.6.1.5.5.7.3.36',
  smartcardLogon: '1.3.6.1.4.1.311.20.2.2',
} as const satisfies Readonly<Record<string, string>>

/** Says "for everything"; no certificate of ours does. */
export const anyExtendedKeyUsage = '2.5.29.37.0'

/** Every extension that Chancery has an opinion on. */
export const extensionOids = {
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  issuerAltName: '2.5.29.18',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  crlDistributionPoints: '2.5.29.31',
  certificatePolicies: '2.5.29.32',
  policyMappings: '2.5.29.33',
  authorityKeyIdentifier: '2.5.29.35',
  policyConstraints: '2.5.29.36',
  extendedKeyUsage: '2.5.29.37',
  freshestCrl: '2.5.29.46',
  inhibitAnyPolicy: '2.5.29.54',
  noRevAvail: '2.5.29.56',
  authorityInfoAccess: '1.3.6.1.5.5.7.1.1',
  tlsFeature: '1.3.6.1.5.5.7.1.24',
  ocspNoCheck: '1.3.6.1.5.5.7.48.1.5',
  signedCertificateTimestamps: '1.3.6.1.4.1.11129.2.4.2',
  precertificatePoison: '1.3.6.1.4.1.11129.2.4.3',
} as const satisfies Readonly<Record<string, string>>

export type ExtensionName = keyof typeof extensionOids

/** One extension as it was read. */
export interface ReadExtension {
  /** Dotted. */
  readonly oid: string
  readonly name: ExtensionName | undefined
  readonly critical: boolean
  /** The contents of extnValue: one strict element. */
  readonly value: DerReader
}

/**
 * Extensions ::= SEQUENCE SIZE (1..MAX) OF Extension, from a reader whose only element was walked. The contents of
 * every extnValue are walked here. Throws ext.syntax, ext.duplicate (RFC 5280 4.2), and the reader's own code for an
 * encoded `critical FALSE`.
 */
export const readExtensions = (reader: DerReader, budget: WalkBudget): ReadExtension[] => {
  const list = reader.as('ext.syntax').read(tags.sequence, 'Extensions')
  if (list.end !== reader.end) throw derProblem('ext.syntax', 'there is more than one Extensions', list.end)
  if (list.done) throw list.problem('Extensions is empty')
  const seen = new Set<string>()
  const extensions: ReadExtension[] = []
  while (!list.done) {
    const at = list.at
    const extension = list.read(tags.sequence, 'Extension')
    const key = extension.oid('extnID')
    if (seen.has(key)) throw derProblem('ext.duplicate', `extension ${shownOid(key)} occurs twice`, at)
    seen.add(key)
    const critical = extension.defaultFalse('critical', reader.code)
    const value = extension.read(tags.octetString, 'extnValue')
    extension.finish('Extension')
    walk(value, budget)
    extensions.push({ oid: formatOid(key), name: namesByOid.get(key), critical, value })
  }
  return extensions
}

/**
 * The same where no certificate has them, in lists and OCSP: their values by `oidKey`, not walked yet, under the reader's own code.
 * What is unknown and not critical is passed over; what is unknown and critical would change what all of it means.
 */
export const readKnownExtensions = (
  from: DerReader,
  known: { readonly has: (key: string) => boolean },
): ReadonlyMap<string, DerReader> => {
  const list = from.read(tags.sequence, 'Extensions')
  from.finish('what holds Extensions')
  const values = new Map<string, DerReader>()
  while (!list.done) {
    const extension = list.read(tags.sequence, 'Extension')
    const key = extension.oid('extnID')
    const critical = extension.defaultFalse('critical')
    const value = extension.read(tags.octetString, 'extnValue')
    extension.finish('Extension')
    if (values.has(key)) throw extension.problem(`extension ${shownOid(key)} occurs twice`)
    if (critical && !known.has(key)) throw extension.problem(`extension ${shownOid(key)} is critical and unknown`)
    values.set(key, value)
  }
  return values
}

/** BasicConstraints (RFC 5280 4.2.1.9). */
export const readBasicConstraints = (value: DerReader): { readonly ca: boolean; readonly pathLength?: number } => {
  const sequence = value.read(tags.sequence, 'BasicConstraints')
  const ca = sequence.defaultFalse('cA')
  const pathLength = sequence.tag === tags.integer ? sequence.smallInteger('pathLenConstraint') : undefined
  sequence.finish('BasicConstraints')
  return pathLength === undefined ? { ca } : { ca, pathLength }
}

/** KeyUsage: named bits, so no trailing zero bits (X.690 11.2.2) and at least one set. */
export const readKeyUsage = (value: DerReader): KeyUsage[] => {
  const bits = value.read(tags.bitString, 'KeyUsage')
  const { buffer, start, end } = bits
  const unused = buffer[start] as number
  const last = buffer[end - 1] as number
  if (end - start < 2 || end - start > 3) throw derProblem(value.code, 'KeyUsage names no usage or unknown ones', start)
  if (((last >> unused) & 1) === 0) throw derProblem(value.code, 'KeyUsage has trailing zero bits', start)
  const usages = keyUsages.filter(
    (_, bit) =>
      start + 1 + (bit >> 3) < end && ((buffer[start + 1 + (bit >> 3)] as number) & (0x80 >> (bit & 7))) !== 0,
  )
  if (end - start === 3 && (last & 0x7f) !== 0) throw derProblem(value.code, 'KeyUsage names unknown usages', start)
  return usages
}

/** ExtKeyUsageSyntax: at least one purpose, none twice; names where known, else dotted OIDs. */
export const readExtendedKeyUsage = (value: DerReader): string[] => {
  const list = value.read(tags.sequence, 'ExtKeyUsageSyntax')
  if (list.done) throw list.problem('ExtKeyUsageSyntax is empty')
  const usages: string[] = []
  while (!list.done) {
    const key = list.oid('KeyPurposeId')
    usages.push(usagesByOid.get(key) ?? formatOid(key))
    if (usages.length > maxUsages) throw list.problem(`ExtKeyUsageSyntax has more than ${maxUsages} purposes`)
  }
  if (new Set(usages).size !== usages.length) throw list.problem('ExtKeyUsageSyntax names a purpose twice')
  return usages
}

export const encodeKeyUsage = (usages: readonly KeyUsage[]): Buffer => {
  const bits = usages.map((usage) => keyUsages.indexOf(usage))
  const highest = Math.max(...bits)
  if (highest < 0) throw new RangeError('KeyUsage needs at least one usage')
  const octets = Buffer.alloc((highest >> 3) + 1)
  for (const bit of bits) octets[bit >> 3] = (octets[bit >> 3] as number) | (0x80 >> (bit & 7))
  return encodeDer(tags.bitString, Buffer.from([7 - (highest & 7)]), octets)
}

export const encodeExtendedKeyUsage = (usages: readonly string[]): Buffer =>
  encodeSequence(...usages.map((usage) => encodeOid(extendedKeyUsageOid(usage))))

/** The dotted OID of a usage that is a name of the table or a dotted OID itself. */
const extendedKeyUsageOid = (usage: string): string => {
  if (Object.hasOwn(extendedKeyUsages, usage)) return extendedKeyUsages[usage as keyof typeof extendedKeyUsages]
  if (isDottedOid(usage)) return usage
  throw new RangeError('an extended key usage is a name of the table or a dotted OID')
}

/** As policy and records have it: by its name where there is one in the table, however it was written. */
export const extendedKeyUsageName = (usage: string): string =>
  (isDottedOid(usage) ? usagesByOid.get(oidKey(usage)) : undefined) ?? usage

/** Is this an OID that can be encoded: two roots, arcs without leading zeros and below 2^31? */
export const isDottedOid = (text: string): boolean => {
  if (text.length > 128 || !/^[0-2](\.(0|[1-9]\d{0,9})){1,30}$/.test(text)) return false
  const arcs = text.split('.').map(Number)
  return arcs.every((arc) => arc < 0x7fffff00) && (arcs[0] === 2 || (arcs[1] as number) < 40)
}

/** Extension ::= SEQUENCE { extnID, critical BOOLEAN DEFAULT FALSE, extnValue OCTET STRING }. */
export const encodeExtension = (name: ExtensionName, critical: boolean, value: Buffer): Buffer =>
  encodeSequence(encodeOid(extensionOids[name]), critical ? booleanTrue : empty, encodeDer(tags.octetString, value))

const maxUsages = 32
const booleanTrue = Buffer.from([0x01, 0x01, 0xff])
const empty = Buffer.alloc(0)
const namesByOid = new Map(Object.entries(extensionOids).map(([name, oid]) => [oidKey(oid), name as ExtensionName]))
const usagesByOid = new Map(Object.entries(extendedKeyUsages).map(([name, oid]) => [oidKey(oid), name]))
