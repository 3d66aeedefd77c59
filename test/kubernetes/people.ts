/**
 * Who asks: service account tokens (JWTs of the cluster's own issuer, which anyone can verify by discovery) and users by
 * static tokens, as kube-apiserver's token file gives them.
 */
import { createPublicKey, randomUUID, verify } from 'node:crypto'

import { newRsaKey, signToken } from '../helpers/issuer.ts'
import type { Store } from './store.ts'
import { at, nameOf, type Tree, textAt, textsAt, treeAt, uidOf, type Value } from './values.ts'

export interface User {
  readonly username: string
  readonly uid?: string
  readonly groups: readonly string[]
  readonly extra?: Readonly<Record<string, readonly string[]>>
}

export interface TokenOptions {
  readonly audiences?: readonly string[]
  readonly expiresIn?: number
  /** The name of a pod in the namespace of the account: the token is bound to it and tells its node. */
  readonly pod?: string
  readonly id?: string
}

export interface People {
  readonly jwks: Tree
  readonly discovery: Tree
  /** `namespace/name` of a service account that exists. */
  tokenOf(account: string, options?: TokenOptions): string
  tokenFor(user: User): string
  /** Who this token is of, for one of the audiences, or why not. */
  review(token: string, audiences: readonly string[]): Review
}

export type Review =
  | { readonly user: User; readonly audiences: readonly string[]; readonly error?: undefined }
  | { readonly error: string }

export const apiAudience = 'https://kubernetes.default.svc.cluster.local'

export const openPeople = (store: Store, issuer: () => string, now: () => Date): People => {
  const users = new Map<string, User>()
  return {
    jwks: { keys: [signingKey().jwk as Tree] },
    get discovery() {
      return {
        issuer: issuer(),
        jwks_uri: `${issuer()}/openid/v1/jwks`,
        response_types_supported: ['id_token'],
        subject_types_supported: ['public'],
        id_token_signing_alg_values_supported: ['RS256'],
      }
    },
    tokenOf: (account, options = {}) => {
      const [namespace = '', name = ''] = account.split('/')
      const claims = claimsOf(store, { namespace, name }, options)
      const issued = Math.floor(now().getTime() / 1000)
      return signToken(
        { iss: issuer(), iat: issued, nbf: issued, exp: issued + (options.expiresIn ?? 3600), ...claims },
        signingKey(),
      )
    },
    tokenFor: (user) => {
      const token = randomUUID()
      users.set(token, user)
      return token
    },
    review: (token, audiences) => {
      const known = users.get(token)
      if (known !== undefined) return { user: known, audiences }
      return reviewJwt(store, token, { audiences, issuer: issuer(), now: now() })
    },
  }
}

const claimsOf = (
  store: Store,
  { namespace, name }: { readonly namespace: string; readonly name: string },
  { audiences = [apiAudience], pod, id = randomUUID() }: TokenOptions,
): Tree => {
  const account = store.find('serviceaccounts', namespace, name)
  if (account === undefined) throw new Error(`no service account ${namespace}/${name}`)
  const bound = pod === undefined ? undefined : store.find('pods', namespace, pod)
  const node = store.find('nodes', '', textAt(bound, 'spec', 'nodeName'))
  return {
    aud: [...audiences],
    jti: id,
    sub: `system:serviceaccount:${namespace}:${name}`,
    'kubernetes.io': {
      namespace,
      serviceaccount: { name, uid: uidOf(account) },
      ...(bound === undefined ? {} : { pod: { name: nameOf(bound), uid: uidOf(bound) } }),
      ...(node === undefined ? {} : { node: { name: nameOf(node), uid: uidOf(node) } }),
    },
  }
}

interface Expectation {
  readonly audiences: readonly string[]
  readonly issuer: string
  readonly now: Date
}

const reviewJwt = (store: Store, token: string, { audiences, issuer, now }: Expectation): Review => {
  const [header = '', payload = '', signature = ''] = token.split('.')
  const claims = parseJson(payload)
  if (claims === undefined || textAt(claims, 'iss') !== issuer) return { error: 'invalid bearer token' }
  if (!isSigned(`${header}.${payload}`, signature)) return refused('go-jose/go-jose: error in cryptographic primitive')
  const meant = textsAt(claims, 'aud')
  const common = audiences.filter((audience) => meant.includes(audience))
  if (common.length === 0)
    return refused(`token audiences ${goList(meant)} is invalid for the target audiences ${goList(audiences)}`)
  // The clock may be off by a minute.
  if (Number(claims['exp']) + 60 < now.getTime() / 1000) return refused('service account token has expired')
  const facts = treeAt(claims, 'kubernetes.io')
  const name = textAt(facts, 'serviceaccount', 'name')
  const namespace = textAt(facts, 'namespace')
  const account = store.find('serviceaccounts', namespace, name)
  if (account === undefined) return refused(`serviceaccounts "${name}" not found`)
  return { user: accountUser(facts, textAt(claims, 'jti')), audiences: common }
}

/** Remembered: a token comes with every request. */
const isSigned = (signed: string, signature: string): boolean => {
  const known = signatures.get(`${signed}.${signature}`)
  if (known !== undefined) return known
  const key = createPublicKey(signingKey().pem)
  const valid = verify('sha256', Buffer.from(signed), key, Buffer.from(signature, 'base64url'))
  signatures.set(`${signed}.${signature}`, valid)
  return valid
}

const signatures = new Map<string, boolean>()

const accountUser = (facts: Tree, id: string): User => {
  const namespace = textAt(facts, 'namespace')
  const named = Object.entries({ node: 'node', pod: 'pod' }).flatMap(([claim, name]) =>
    at(facts, claim) === undefined
      ? []
      : [
          [`authentication.kubernetes.io/${name}-name`, [textAt(facts, claim, 'name')]],
          [`authentication.kubernetes.io/${name}-uid`, [textAt(facts, claim, 'uid')]],
        ],
  ) as [string, string[]][]
  return {
    username: `system:serviceaccount:${namespace}:${textAt(facts, 'serviceaccount', 'name')}`,
    uid: textAt(facts, 'serviceaccount', 'uid'),
    groups: ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'],
    extra: Object.fromEntries([['authentication.kubernetes.io/credential-id', [`JTI=${id}`]], ...named]),
  }
}

const refused = (why: string): Review => ({ error: `[invalid bearer token, ${why}]` })
const goList = (texts: readonly string[]): string => `[${texts.map((text) => JSON.stringify(text)).join(' ')}]`

const parseJson = (payload: string): Tree | undefined => {
  try {
    return JSON.parse(Buffer.from(payload, 'base64url').toString()) as Tree
  } catch {
    return undefined
  }
}

/** Made once a process: a new RSA key costs more than all else that a cluster is. */
let kept: ReturnType<typeof newRsaKey> | undefined
const signingKey = (): ReturnType<typeof newRsaKey> => {
  kept ??= newRsaKey()
  return kept
}

export const userTree = ({ username, uid, groups, extra }: User): Tree => ({
  username,
  ...(uid === undefined ? {} : { uid }),
  groups: [...groups],
  ...(extra === undefined ? {} : { extra: structuredClone(extra) as unknown as Value }),
})
