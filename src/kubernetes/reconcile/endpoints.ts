/**
 * Where an issuer of the cluster sends its requests, trusting what, as whom: read from its spec, from Secrets and from files.
 * Nothing is kept longer than half a minute, so that tokens and trust that change are seen without a restart.
 */
import { hash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { getCACertificates } from 'node:tls'

import { trustFault } from '../../client/trust.ts'
import type { KubernetesApi } from '../api/client.ts'
import { isApiFault } from '../api/client.ts'
import type { Issuer, IssuerSpec } from '../api/objects.ts'
import { pathOf, resources } from '../api/resources.ts'
import type { Fault } from '../decide/outcome.ts'
import type { ServerSettings } from '../settings.ts'
import { type Chancery, openChancery, type Place } from './chancery.ts'

export interface Places {
  /** A fault where the spec cannot be followed. Rejects with nothing but the reason of the signal. */
  of(issuer: Issuer, signal: AbortSignal): Promise<Chancery | Fault>
  /** What was read for it may be old: read it anew next time. */
  forget(issuer: Issuer): void
}

export interface PlacesDeps {
  readonly api: Pick<KubernetesApi, 'call'>
  /** Whom the controller's own tokens may be shown to; and, where there are some, whom anything is. */
  readonly servers: readonly ServerSettings[]
  /** Where the Secrets of cluster issuers are. */
  readonly secretNamespace: string
  /** Whether a text has the form of a token of Chancery: no other secret has. */
  readonly isToken: (text: string) => boolean
  /** Milliseconds that only go forward. */
  readonly now: () => number
}

export const openPlaces = (deps: PlacesDeps): Places => {
  const known = new Map<string, { readonly chancery: Chancery; readonly from: string; readonly until: number }>()
  return {
    of: async (issuer, signal) => {
      const { uid } = issuer.metadata
      const from = hash('sha256', JSON.stringify(issuer.spec), 'base64')
      const found = known.get(uid)
      if (found?.from === from && found.until > deps.now()) return found.chancery
      const place = await placeOf(deps, issuer, signal)
      if ('kind' in place) return place
      // Oldest first: what is not good any more, and what there is too much of.
      for (const [oldest, { until }] of known) {
        if (until > deps.now() && known.size < mostKnown) break
        known.delete(oldest)
      }
      const chancery = openChancery(place)
      known.delete(uid)
      known.set(uid, { chancery, from, until: deps.now() + keptMs })
      return chancery
    },
    forget: ({ metadata }) => void known.delete(metadata.uid),
  }
}

const placeOf = async (deps: PlacesDeps, issuer: Issuer, signal: AbortSignal): Promise<Place | Fault> => {
  const { spec } = issuer
  if (!/^https:\/\/[^/?#@\s]+\/?$/.test(spec.url) || !URL.canParse(spec.url))
    return misconfigured(`spec.url ${JSON.stringify(spec.url.slice(0, 256))} is not like https://host:port`)
  const server = new URL(spec.url).origin
  const settings = serverNamed(deps.servers, spec.url)
  if (settings === undefined && deps.servers.length > 0)
    return misconfigured(`the settings of the controller name ${server.slice(0, 256)} nowhere (servers)`)
  // What a profile ties to who has asked would be tied to nothing: whoever may make an issuer could ask as the controller.
  if (spec.onBehalfOf === false && spec.auth.serviceAccount && issuer.metadata.namespace !== undefined)
    return misconfigured('spec.onBehalfOf cannot be false of an issuer of a namespace that asks as the controller')
  const ca = await trustOf(spec, settings)
  if (typeof ca !== 'string') return ca
  const token = await tokenOf(deps, issuer, { settings, signal })
  return typeof token === 'string' ? { server, ca, token } : token
}

export const serverNamed = (servers: readonly ServerSettings[], url: string): ServerSettings | undefined =>
  URL.canParse(url) ? servers.find((server) => new URL(server.url).origin === new URL(url).origin) : undefined

/** The controller's own token is shown to whom the settings trust, whatever the issuer says. */
export const bundleOf = ({ auth, caBundle }: IssuerSpec, settings: ServerSettings | undefined): string | undefined =>
  auth.serviceAccount && settings?.caFile !== undefined ? undefined : caBundle

const trustOf = async (spec: IssuerSpec, settings: ServerSettings | undefined): Promise<string | Fault> => {
  const caBundle = bundleOf(spec, settings)
  try {
    if (caBundle !== undefined) return trustOrFault('spec.caBundle', Buffer.from(caBundle, 'base64').toString())
    const { caFile } = settings ?? {}
    if (caFile !== undefined) return trustOrFault(`caFile ${caFile}`, await readFile(caFile, 'utf8'))
    return getCACertificates('default').join('\n')
  } catch (error) {
    return untrusted(`what to trust cannot be read: ${(error as Error).message}`)
  }
}

const trustOrFault = (where: string, pem: string): string | Fault => {
  const fault = trustFault(pem)
  return fault === undefined ? pem : untrusted(`${where} ${fault}`)
}

interface TokenContext {
  readonly settings: ServerSettings | undefined
  readonly signal: AbortSignal
}

const tokenOf = async (deps: PlacesDeps, issuer: Issuer, context: TokenContext): Promise<string | Fault> => {
  const { serviceAccount, tokenSecretRef } = issuer.spec.auth
  if (serviceAccount && !tokenSecretRef) return ownToken(serviceAccount.audiences, context.settings)
  if (tokenSecretRef && !serviceAccount) return secretToken(deps, issuer, context.signal)
  return misconfigured('spec.auth must have one of serviceAccount and tokenSecretRef')
}

/**
 * Whoever may make an issuer chooses its url: if that were enough, anybody could have the controller show its token to a
 * server of theirs, and be the controller at Chancery. So the settings say to whom, and for which audience.
 */
const ownToken = async (
  audiences: readonly string[],
  settings: ServerSettings | undefined,
): Promise<string | Fault> => {
  const token = settings?.token
  if (token === undefined)
    return misconfigured('the settings of the controller name no token of its own for this url (servers)')
  if (audiences.length !== 1 || audiences[0] !== token.audience)
    return misconfigured(`the token of the controller for this url is for the audience ${token.audience}, and no other`)
  try {
    const text = (await readFile(token.file, 'latin1')).trim()
    return /^[\x21-\x7e]{1,16384}$/.test(text)
      ? text
      : misconfigured('the file for the token of the controller holds none')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return misconfigured(`the token of the controller cannot be read (${code ?? 'unreadable'})`)
  }
}

/**
 * Whoever may make an issuer chooses its url and the Secret. So nothing leaves a Secret that is not a token of Chancery: else
 * who may make issuers but not read Secrets would have the controller send their contents to a server of his.
 */
const secretToken = async (deps: PlacesDeps, issuer: Issuer, signal: AbortSignal) => {
  const { api, secretNamespace, isToken } = deps
  const { name, key = 'token' } = issuer.spec.auth.tokenSecretRef ?? { name: '' }
  // A namespaced issuer reaches the Secrets of its own namespace only.
  const namespace = issuer.metadata.namespace ?? secretNamespace
  const what = `Secret ${namespace}/${name}`
  // What is in the namespace of the controller is not for everybody who may read the status of a cluster issuer.
  const missing = (told: string): Fault =>
    misconfigured(
      issuer.metadata.namespace === undefined ? 'spec.auth.tokenSecretRef names no token of Chancery' : told,
    )
  try {
    const path = pathOf(resources.secrets, { namespace, name })
    const { data } = await api.call<{ readonly data?: Readonly<Record<string, string>> }>('GET', path, { signal })
    const value = data !== undefined && Object.hasOwn(data, key) ? data[key] : undefined
    if (value === undefined) return missing(`${what} has no key ${key}`)
    const token = Buffer.from(value, 'base64').toString('latin1').trim()
    return isToken(token) ? token : missing(`${what}, key ${key}, holds no token of Chancery`)
  } catch (error) {
    if (!isApiFault(error)) throw error
    if (error.status === 404) return missing(`${what} does not exist`)
    if (error.status === 403) return missing(`${what} may not be read by the controller`)
    return { kind: 'unreachable', message: 'the Secret with the token cannot be read now' } as const
  }
}

const misconfigured = (message: string): Fault => ({ kind: 'misconfigured', message })
const untrusted = (message: string): Fault => ({ kind: 'misconfigured', about: 'trust', message })

const keptMs = 30_000
const mostKnown = 1_024
