/** What Chancery is asked for on behalf of an object: pure, and the same for the same object, however often it is asked. */
import type { KubernetesObject, Requester } from '../api/objects.ts'

/** Who has asked, and for what: Chancery records it, and its profiles can judge it. */
export interface OnBehalfOf {
  readonly user?: string
  readonly uid?: string
  readonly groups?: readonly string[]
  readonly extra?: Readonly<Record<string, readonly string[]>>
  /** Where the object lies. */
  readonly namespace?: string
  readonly object?: { readonly apiVersion: string; readonly kind: string; readonly name: string; readonly uid: string }
  readonly serviceAccount?: string
  readonly serviceAccountUid?: string
  readonly pod?: string
  readonly podUid?: string
  readonly node?: string
  readonly nodeUid?: string
}

/** The body of `POST /v1/certificates`. */
export interface AskBody extends AskedUsages {
  /** PEM. */
  readonly csr: string
  readonly profile: string
  /** In place of those in the CSR. */
  readonly names?: { readonly dns?: readonly string[]; readonly uri?: readonly string[] }
  /** Seconds with their unit: 86400s. */
  readonly validity?: string
  readonly onBehalfOf?: OnBehalfOf
}

export interface Ask {
  /** The object's uid: names come again, uids never do. */
  readonly idempotencyKey: string
  readonly body: AskBody
}

/** Undefined where nobody is written down: then it is asked in the controller's own name, if its grant allows that. */
export const behalfOf = (object: KubernetesObject, requester: Requester): OnBehalfOf | undefined => {
  const { username, uid, groups = [], extra = {} } = requester
  if (username === undefined || username === '') return undefined
  const { apiVersion, kind } = object
  const { namespace, name, uid: objectUid } = object.metadata
  return {
    user: username,
    ...(uid !== undefined && uid !== '' && { uid }),
    ...(groups.length > 0 && { groups: [...new Set(groups)] }),
    ...(Object.keys(extra).length > 0 && { extra }),
    ...(namespace !== undefined && { namespace }),
    object: { apiVersion, kind, name, uid: objectUid },
  }
}

/** Seconds of a duration as Go writes it (1h30m, 24h0m0s, 500ms); undefined where it is none, or under a second. */
export const readDuration = (text: string): number | undefined => {
  if (!/^(\d+(\.\d+)?(ns|us|µs|ms|h|m|s))+$/.test(text) || text.length > 64) return undefined
  let seconds = 0
  for (const [, number = '', unit = ''] of text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|h|m|s)/g))
    seconds += Number(number) * (unitSeconds[unit] ?? Number.NaN)
  const whole = Math.floor(seconds)
  return Number.isSafeInteger(whole) && whole >= 1 ? whole : undefined
}

const unitSeconds: Readonly<Record<string, number>> = {
  ns: 1e-9,
  us: 1e-6,
  µs: 1e-6,
  ms: 1e-3,
  s: 1,
  m: 60,
  h: 3_600,
}

/** The PEM text within base64, as requests carry it; undefined where it is not even that. */
export const decodePem = (base64: string): string | undefined => {
  if (base64.length > mostBase64 || !/^[A-Za-z0-9+/]+={0,2}$/.test(base64)) return undefined
  return Buffer.from(base64, 'base64').toString('latin1')
}

/** What to say of what `decodePem` takes for none: of one that is too long nothing is kept. */
export const whyNotPem = (base64: string): string =>
  base64 === '' || base64.length > mostBase64
    ? 'is empty or too long: Chancery reads 16 KiB in DER at most'
    : 'is not a request in PEM within base64'

/** Characters: base64 of the PEM of 16 KiB of DER, which is all that Chancery reads, with ends of lines of two octets. */
const mostBase64 = 32_000

/** What a request (PKCS#10) asks for, as far as rules of Kubernetes look at it. The caller of the controller reads it. */
export interface RequestFacts {
  /** In DER. */
  readonly spki: Buffer
  readonly isSubjectEmpty: boolean
  readonly commonName: string | undefined
  readonly organizations: readonly string[]
  /** Some other attribute is in the subject. */
  readonly hasOtherAttributes: boolean
  readonly names: readonly { readonly kind: 'dns' | 'ip' | 'uri' | 'email'; readonly value: string }[]
}

/** From PEM. A fault is a sentence; the signature has not been checked. */
export type ReadRequest = (pem: string) => RequestFacts | { readonly fault: string }

/**
 * Usages as Kubernetes and cert-manager write them, and as Chancery does. Both APIs take these 23 and no others; cert-manager
 * has `signing` for digital signature as well.
 */
type Entry =
  | { readonly keyUsage: string }
  | { readonly extendedKeyUsage: string }
  /** No certificate of an end entity has it, whatever a profile says. */
  | { readonly never: string }

const table: Readonly<Record<string, Entry>> = {
  signing: { keyUsage: 'digitalSignature' },
  'digital signature': { keyUsage: 'digitalSignature' },
  'content commitment': { keyUsage: 'contentCommitment' },
  'key encipherment': { keyUsage: 'keyEncipherment' },
  'key agreement': { keyUsage: 'keyAgreement' },
  'data encipherment': { keyUsage: 'dataEncipherment' },
  'encipher only': { keyUsage: 'encipherOnly' },
  'decipher only': { keyUsage: 'decipherOnly' },
  'cert sign': { never: 'only a CA signs certificates' },
  'crl sign': { never: 'only a CA signs lists' },
  any: { never: 'a certificate for every usage is for none in particular' },
  'ocsp signing': { never: 'only the service itself answers for its issuers' },
  'server auth': { extendedKeyUsage: 'serverAuth' },
  'client auth': { extendedKeyUsage: 'clientAuth' },
  'code signing': { extendedKeyUsage: 'codeSigning' },
  'email protection': { extendedKeyUsage: 'emailProtection' },
  's/mime': { extendedKeyUsage: 'emailProtection' },
  'ipsec end system': { extendedKeyUsage: '1.3.6.1.5.5.7.3.5' },
  'ipsec tunnel': { extendedKeyUsage: '1.3.6.1.5.5.7.3.6' },
  'ipsec user': { extendedKeyUsage: '1.3.6.1.5.5.7.3.7' },
  timestamping: { extendedKeyUsage: 'timeStamping' },
  'microsoft sgc': { extendedKeyUsage: '1.3.6.1.4.1.311.10.3.3' },
  'netscape sgc': { extendedKeyUsage: '2.16.840.1.113730.4.1' },
}

export interface AskedUsages {
  readonly keyUsage?: readonly string[]
  readonly extendedKeyUsage?: readonly string[]
}

export type ReadUsages = { readonly usages: AskedUsages } | { readonly fault: string }

/** Each once, in the order in which they were asked for. None asked for: the profile's, whatever they are. */
export const readUsages = (asked: readonly string[] = []): ReadUsages => {
  const keyUsage = new Set<string>()
  const extendedKeyUsage = new Set<string>()
  for (const usage of asked) {
    const entry = Object.hasOwn(table, usage) ? table[usage] : undefined
    if (entry === undefined) return { fault: `the usage ${JSON.stringify(usage.slice(0, 64))} is not known` }
    if ('never' in entry) return { fault: `the usage ${usage} is for nobody: ${entry.never}` }
    if ('keyUsage' in entry) keyUsage.add(entry.keyUsage)
    else extendedKeyUsage.add(entry.extendedKeyUsage)
  }
  return {
    usages: {
      ...(keyUsage.size > 0 && { keyUsage: [...keyUsage] }),
      ...(extendedKeyUsage.size > 0 && { extendedKeyUsage: [...extendedKeyUsage] }),
    },
  }
}
