/** What a person asks for: profile, names and kind of key. Here it becomes a key and a request; the key never leaves. */
import { createPublicKey, generateKeyPair, hash, type KeyObject } from 'node:crypto'
import { isIPv4, isIPv6 } from 'node:net'
import { promisify } from 'node:util'

import { isProblem } from '../../errors.ts'
import { canonicalJson } from '../../lib/canonical-json.ts'
import { Failure } from '../../lib/failure.ts'
import { defaultSignatureAlgorithm, generationOf, type KeyKind, readKeyKind } from '../../x509/algorithms.ts'
import { assertNames, type Name, type NameKind, nameKinds, parseName } from '../../x509/names.ts'
import { encodePem } from '../../x509/pem.ts'
import { encodeRequest } from '../../x509/request.ts'

export interface Order {
  readonly profile: string
  /** Such as 24h; the profile's default otherwise. */
  readonly validity?: string
  readonly commonName?: string
  readonly names: readonly Name[]
  readonly keyKind: KeyKind
}

/** Names as options have them: by their form, or with their kind said. */
export interface NameOptions {
  readonly name?: readonly string[]
  readonly dns?: readonly string[]
  readonly ip?: readonly string[]
  readonly uri?: readonly string[]
  readonly email?: readonly string[]
}

/** In normal form, in the order in which they were said. Throws a usage failure. */
export const readNames = ({ name = [], ...kinds }: NameOptions): readonly Name[] => {
  const told = [
    ...name.map((text) => [kindOf(text), text] as const),
    ...nameKinds.flatMap((kind) => (kinds[kind] ?? []).map((text) => [kind, text] as const)),
  ]
  try {
    const names = told.map(([kind, text]) => parseName(kind, text))
    assertNames(names)
    return names
  } catch (error) {
    if (!isProblem(error)) throw error
    const [violation] = error.options.violations ?? []
    throw new Failure('usage', `${violation?.value ?? 'A list of names'}: ${error.detail}.`)
  }
}

/** An address; a URI by its scheme; a mailbox by its @; else a DNS name. */
const kindOf = (text: string): NameKind => {
  // What makes out version 6 is made when it is first asked, and takes longer than all else here.
  if (text.includes(':') ? isIPv6(text) : isIPv4(text)) return 'ip'
  if (/^[a-z][a-z0-9+.-]*:(?!\d+$)/i.test(text)) return 'uri'
  return text.includes('@') ? 'email' : 'dns'
}

/** As people write it, in any case. Throws a usage failure. */
export const readKeyKindOption = (text: string): KeyKind => {
  const kind = keyKinds[text.toLowerCase()]
  if (kind === undefined) throw new Failure('usage', `--key-type is one of ${keyTypeNames.join(', ')}.`)
  return kind
}

/** Two orders with the same digest ask for the same certificate of the same server. */
export const digestOf = ({ profile, validity, commonName, names, keyKind }: Order, server: string): string =>
  hash(
    'sha256',
    canonicalJson({
      server,
      profile,
      validity: validity ?? null,
      commonName: commonName ?? null,
      names: names.map(({ kind, value }) => `${kind}:${value}`),
      keyKind,
    }),
  )

export const newKey = async (kind: KeyKind): Promise<KeyObject> => {
  const { type, options } = generationOf(kind)
  return (await generate(type, options)).privateKey
}

/** PEM of the request for this order, signed by the key. */
export const requestFor = ({ names, commonName, keyKind }: Order, key: KeyObject): string => {
  const spki = createPublicKey(key).export({ type: 'spki', format: 'der' })
  const subject = commonName === undefined ? [] : [{ type: 'commonName', value: commonName } as const]
  const algorithm = defaultSignatureAlgorithm(readKeyKind(keyKind).algorithm)
  return encodePem('CERTIFICATE REQUEST', encodeRequest({ subject, names, spki }, key, algorithm))
}

interface Body {
  readonly csr: string
  readonly profile: string
  readonly validity?: string
}

/** What is sent for it. */
export const bodyFor = (order: Order, csr: string): Body => ({
  csr,
  profile: order.profile,
  ...(order.validity !== undefined && { validity: order.validity }),
})

/** By what `--key-type` says, in lower case. */
const keyKinds: Readonly<Record<string, KeyKind>> = {
  'p-256': 'ec-p256',
  'p-384': 'ec-p384',
  'p-521': 'ec-p521',
  ed25519: 'ed25519',
  'rsa-2048': 'rsa',
  'rsa-3072': 'rsa-3072',
  'rsa-4096': 'rsa-4096',
  'ml-dsa-44': 'ml-dsa-44',
  'ml-dsa-65': 'ml-dsa-65',
  'ml-dsa-87': 'ml-dsa-87',
}

export const keyTypeNames: readonly string[] = Object.keys(keyKinds)

// The typed overloads want a literal type; the table of algorithms holds only types that exist.
const generate = promisify(generateKeyPair) as unknown as (
  type: string,
  options: object,
) => Promise<{ privateKey: KeyObject }>
