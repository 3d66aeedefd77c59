/** What Chancery is asked for on behalf of an object: pure, and the same for the same object, however often it is asked. */
import type { KubernetesObject, Requester } from '../api/objects.ts'
import type { AskedUsages } from './usages.ts'

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
