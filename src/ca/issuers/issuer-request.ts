/** How an issuer begins: a key of its own, and a request for its certificate. */
import { Problem } from '../../errors.ts'
import type { SigningKey } from '../../keys/signing-key.ts'
import { type KeyKind, readKeyKind } from '../../x509/algorithms.ts'
import { parsePublicKey } from '../../x509/keys.ts'
import { encodeRequestInfo, sealRequest } from '../../x509/request.ts'
import { assertSubjectSyntax, type Subject } from '../../x509/subject.ts'
import type { IssuerLifeDeps, IssuerRequest, NewIssuerRequest } from './life.ts'

type RequestDeps = Pick<IssuerLifeDeps, 'store' | 'keys' | 'keyUriFault' | 'rollKey'>

/** Makes the key, or takes the one that is there, and has it sign a request that is on record when this resolves. */
export const makeRequest = async (deps: RequestDeps, ask: NewIssuerRequest, by: string): Promise<IssuerRequest> => {
  const { store } = deps
  assertPlace(deps, ask)
  assertSubjectSyntax(ask.subject)
  const isNamed = ({ name }: { readonly name: string }): boolean => name === ask.name
  if ((await store.issuers()).some(isNamed)) throw exists(`There is an issuer called ${ask.name} already.`)
  if ((await store.requests()).some(isNamed)) throw exists(requestedAlready(ask.name))
  if (await store.isKeyUriOfOther(ask.keyUri, ask.name))
    throw exists(`The key ${ask.keyUri} is that of another issuer.`)
  const key = await openOrMake(deps, ask)
  try {
    const csr = await requestOf(key, ask.subject)
    const { name, authority, keyUri } = ask
    const request = { name, authority, keyUri, csr, createdBy: by }
    if (!(await store.addRequest(request, parsePublicKey(key.spki).sha256.toString('hex')))) throw taken(ask)
  } finally {
    await key.close()
  }
  const stored = (await store.requests()).find(({ name }) => name === ask.name)
  if (!stored) throw new Error('a request for an issuer was not kept')
  return stored
}

export const assertPlace = (
  { keyUriFault }: Pick<IssuerLifeDeps, 'keyUriFault'>,
  { keyUri }: Pick<NewIssuerRequest, 'keyUri'>,
): void => {
  const reason = keyUriFault(keyUri)
  if (reason === undefined) return
  throw wrongKeyUri(reason)
}

/** The URI is not repeated: it may hold what should not be shown. */
export const wrongKeyUri = (reason: string): Problem =>
  new Problem('request.malformed', `/key: ${reason}`, {
    violations: [{ check: 'issuer.keyUri', field: '/key', value: '', reason }],
  })

/** A key that was left by a try that was cut off, or made with the token's own tools, is as good as a new one. */
const openOrMake = async (deps: RequestDeps, { keyUri, algorithm: kind }: NewIssuerRequest): Promise<SigningKey> => {
  const { keys, rollKey } = deps
  const there = await keys.open(keyUri).catch((error: Error) => error)
  const key = there instanceof Error ? await keys.create(keyUri, madeAs(kind)).catch(explainKey(there)) : there
  const found = parsePublicKey(key.spki)
  const { algorithm, bits = found.bits } = readKeyKind(kind)
  const isRolls = key.spki.equals(rollKey)
  if (found.algorithm.id === algorithm && found.bits === bits && !isRolls) return key
  await key.close()
  const type = found.algorithm.id === 'rsa' ? `rsa-${found.bits}` : found.algorithm.id
  const what = isRolls ? 'which signs the roll, and nothing else' : `of the type ${type}`
  throw new Problem('state.exists', `There is a key at ${keyUri} already, ${what}.`)
}

/** Of RSA, no ceremony takes fewer bits. */
const madeAs = (kind: KeyKind): KeyKind => (kind === 'rsa' ? 'rsa-3072' : kind)

/** Whoever may make keys is told what the provider says; it never says secrets. */
const explainKey =
  (unopened: Error) =>
  (error: Error & { readonly remedy?: string }): never => {
    const { message, remedy } = error
    const isThere = error.name === 'KeyExists'
    const code = isThere ? 'state.exists' : remedy === 'request' ? 'issuer.token' : 'key.unavailable'
    const nor = isThere ? ` Nor is it taken: ${unopened.message}` : ''
    throw new Problem(code, `The key was not made: ${message}${nor}`, { cause: error })
  }

const requestOf = async (key: SigningKey, subject: Subject): Promise<Buffer> => {
  const info = encodeRequestInfo({ subject, names: [], spki: key.spki })
  const [signature] = await key.sign([info])
  if (!Buffer.isBuffer(signature))
    throw new Problem('key.unavailable', 'The new key did not sign its request.', { cause: signature })
  return sealRequest(info, key.algorithm, signature)
}

const taken = ({ name, keyUri }: NewIssuerRequest): Problem =>
  exists(`The name ${name} or the key ${keyUri} is that of another issuer.`)

/** Whoever goes on with what another has begun, or whose answer was lost, wants the request and no other. */
const requestedAlready = (name: string): string =>
  `The issuer ${name} is requested already, and its key waits for a certificate: "chancery issuer csr ${name}" prints its request again.`

const exists = (detail: string): Problem => new Problem('state.exists', detail)
