/**
 * The issuers of the cluster: each is looked at when it changes, when a request through it meets a fault that all would meet,
 * and every few minutes; its status says what was found.
 */

import { type CertificateRequest, type Issuer, isReady } from '../api/objects.ts'
import type { Recorder } from '../api/recorder.ts'
import { type IssuerKind, isIssuerKind, issuerKinds } from '../api/resources.ts'
import type { Watch } from '../api/watch.ts'
import { decideIssuer } from '../decide/issuer.ts'
import { type Fault, isSeenByProbe, mayPassProbe, needsPeople, type Outcome } from '../decide/outcome.ts'
import type { Meter } from '../metrics.ts'
import type { ServerSettings } from '../settings.ts'
import { applyOrTell, type applyStatus } from './apply.ts'
import type { Asker } from './asker.ts'
import { bundleOf, serverNamed } from './endpoints.ts'
import { isRecent, type Looked, type Turn, type Why } from './queue.ts'

/** `kind/key`. */
export type IssuerName = `${IssuerKind}/${string}`

export interface IssuersDeps {
  readonly api: Parameters<typeof applyStatus>[0]
  readonly watches: Readonly<Record<IssuerKind, Watch<Issuer>>>
  readonly asker: Asker
  readonly recorder: Recorder
  readonly meter: Meter
  readonly clock: () => Date
  readonly random: () => number
  /** Milliseconds that only go forward. */
  readonly now: () => number
  /** Seconds until one that is ready is looked at again. */
  readonly recheck: number
  /** What is wrong between the controller and these is the operator's to mend, unless an issuer shows them a token of its own. */
  readonly servers: readonly ServerSettings[]
  readonly health: Map<IssuerName, Health>
}

/** What is remembered of an issuer beside its status; it ends with a certificate, or with the issuer. */
export interface Health {
  /** What requests through it have met, until its status says so. */
  readonly fault?: Fault | undefined
  /** How often in a row it was not ready again within a minute. */
  readonly falls: number
  /** Since when it has been ready, in milliseconds that only go forward. */
  readonly readySince?: number | undefined
  /** How often in a row nobody answered a request. */
  readonly silences: number
  /** How often a request met a fault that passes by itself and that a probe need not show. */
  readonly unsigned: number
  /** Whether what it is not ready for is for people of its namespace to mend. */
  readonly isLeft: boolean
}

export interface Issuers {
  find(name: IssuerName): Issuer | undefined
  /** What a request through it has met, and everybody else would meet. */
  suspect(issuer: Issuer, fault: Fault): void
  /** What came of asking it: whoever has answered is not silent, and whoever has issued is believed. */
  hear(issuer: Issuer, outcome: Outcome): void
  look(name: IssuerName, turn: IssuerTurn): Promise<IssuerLooked>
  /** Whether what it was not ready for, when it was looked at last, is for people of its namespace to mend. */
  isLeft(name: IssuerName): boolean
}

export type IssuerTurn = Pick<Turn, 'reported' | 'signal'>

/** `recheckAfter`: milliseconds until it is looked at again though nothing has happened. */
export type IssuerLooked = Looked & { readonly recheckAfter?: number }

export const issuerName = (kind: IssuerKind, key: string): IssuerName => `${kind}/${key}`

/** Undefined where it is nobody of ours. A namespaced one is in the namespace of the request. */
export const issuerNameOf = ({ spec, metadata }: CertificateRequest): IssuerName | undefined => {
  const { group, kind, name } = spec.issuerRef
  if (group !== 'chancery.dev' || !isIssuerKind(kind)) return undefined
  return issuerName(kind, issuerKinds[kind].namespaced ? `${metadata.namespace}/${name}` : name)
}

/** Whoever makes issuers in a namespace makes as many as he likes: they share their places. */
export const laneOfIssuer = (name: IssuerName): string => {
  const [kind, key] = split(name)
  return issuerKinds[kind].namespaced ? issuerName(kind, key.slice(0, key.indexOf('/'))) : name
}

export const openIssuers = (deps: IssuersDeps, wake: (name: IssuerName, why: Why) => void): Issuers => {
  const { watches, random, recheck, health } = deps
  const find = (name: IssuerName): Issuer | undefined => {
    const [kind, key] = split(name)
    return watches[kind].get(key)
  }
  const healthOf = (name: IssuerName): Health => health.get(name) ?? healthy
  return {
    find,
    isLeft: (name) => healthOf(name).isLeft,
    suspect: (issuer, fault) => {
      const name = nameOf(issuer)
      // Who was asked before it fell says nothing new.
      if (!isReady(find(name))) return
      const known = healthOf(name)
      const next = {
        ...known,
        silences: fault.kind === 'unreachable' ? known.silences + 1 : 0,
        unsigned: mayPassProbe(fault) ? known.unsigned + 1 : known.unsigned,
      }
      const isBelieved = isToBeBelieved(next, fault)
      health.set(name, { ...next, fault: known.fault ?? (isBelieved ? fault : undefined) })
      // Whether it is more than one connection that broke, the next look will show; or not, where only probes are answered.
      if (isBelieved ? !known.fault : isSeenByProbe(fault)) wake(name, 'awaited')
    },
    hear: (issuer, outcome) => {
      const name = nameOf(issuer)
      if (outcome.kind === 'issued') {
        // After the first fall there is nothing to shorten; and at once, one that issues each second time would fall all the time.
        if (healthOf(name).falls > 1 && !isReady(find(name))) wake(name, 'changed')
        health.delete(name)
      } else if (outcome.kind !== 'fault' || outcome.fault.kind !== 'unreachable') {
        const known = health.get(name)
        if (known) health.set(name, { ...known, silences: 0 })
      }
    },
    look: async (name, { reported, signal }) => {
      const issuer = find(name)
      if (issuer === undefined || issuer.metadata.deletionTimestamp !== undefined) {
        health.delete(name)
        return { kind: 'end' }
      }
      const wasReady = isReady(issuer)
      const doubted = healthOf(name).fault
      const fault = doubted ?? (await deps.asker.probe(issuer, signal))
      await write(deps, issuer, { fault, reported, signal })
      const known = healthOf(name)
      const { falls, readySince } = known
      const isSteady = wasReady && readySince !== undefined && deps.now() - readySince >= steadyMs
      if (fault === undefined) {
        const since = wasReady ? (readySince ?? deps.now()) : deps.now()
        // Nothing that was asked since it fell has met the same. Before the first fall, what is asked seldom still counts.
        const forgiven = isSteady && falls > 0 ? { falls: 0, silences: 0, unsigned: 0 } : {}
        health.set(name, { ...known, ...forgiven, readySince: since, isLeft: false })
        return { kind: 'end', recheckAfter: recheck * 1_000 * (0.9 + random() / 5) }
      }
      // An issuer that answers a probe may still be unable to sign, or answer each second one: it is believed later each time.
      const next = wasReady ? (isSteady ? 1 : falls + 1) : falls
      const isLeft = isOfNamespace(deps, issuer, fault)
      const shown = doubted ? undefined : known.fault
      health.set(name, { ...known, falls: next, readySince: undefined, fault: shown, isLeft })
      return { kind: 'retry', ...beliefOf(next), isLeft }
    },
  }
}

/** One signature that came late says nothing of the next. Who fell by a row that has not ended falls by one more of it. */
const isToBeBelieved = ({ silences, unsigned }: Health, fault: Fault): boolean =>
  silences >= longRow || (mayPassProbe(fault) && unsigned >= longRow) || (needsPeople(fault) && !isSeenByProbe(fault))

/** Of one that has never been ready, the queue's own patience decides. */
const beliefOf = (falls: number): { readonly after?: number } =>
  falls === 0 ? {} : { after: Math.min(mostSuspicious, 2 ** Math.min(falls - 1, 10)) }

/** Where in doubt it is the operator's, whom an alert tells. */
const isOfNamespace = ({ servers }: IssuersDeps, { metadata, spec }: Issuer, fault: Fault): boolean => {
  if (metadata.namespace === undefined) return false
  const server = serverNamed(servers, spec.url)
  if (server === undefined) return true
  // What stands before it, and what it shows, is not of the namespace.
  if (!needsPeople(fault) || fault.kind === 'foreign') return false
  if (fault.kind === 'misconfigured' && fault.about === 'server') return false
  if (fault.kind === 'misconfigured' && fault.about === 'trust') return bundleOf(spec, server) !== undefined
  if (!isOfItsOwnToken({ metadata, spec })) return false
  return fault.kind !== 'problem' || (fault.problem.status ?? 0) < 500
}

/** Whoever has made it asks as a principal of his own, with the limits of that. */
export const isOfItsOwnToken = ({ metadata, spec }: Pick<Issuer, 'metadata' | 'spec'>): boolean =>
  metadata.namespace !== undefined && spec.auth.tokenSecretRef !== undefined

interface Found extends IssuerTurn {
  readonly fault: Fault | undefined
}

/** Nothing, where the status says so already; and nothing about a spec that has changed meanwhile. */
const write = async (deps: IssuersDeps, issuer: Issuer, { fault, reported, signal }: Found): Promise<void> => {
  const { api, recorder, meter, clock } = deps
  const now = clock()
  const next = decideIssuer(issuer, fault, { now, wasJustTold: isRecent(reported, now) })
  if (next === undefined) return
  const [kind] = split(nameOf(issuer))
  const resource = issuerKinds[kind]
  const holds = (fresh: Issuer): boolean => fresh.metadata.generation === issuer.metadata.generation
  const applying = { resource, object: issuer, status: next.status, holds, signal }
  const applied = await applyOrTell({ api, recorder, meter }, 'Check', applying)
  if (applied.kind !== 'written') return
  reported.at = now.getTime()
  if (next.event) recorder.record(issuer, next.event)
}

const nameOf = ({ kind, metadata }: Issuer): IssuerName =>
  issuerName(
    kind as IssuerKind,
    metadata.namespace === undefined ? metadata.name : `${metadata.namespace}/${metadata.name}`,
  )

const split = (name: IssuerName): readonly [IssuerKind, string] => {
  const slash = name.indexOf('/')
  return [name.slice(0, slash) as IssuerKind, name.slice(slash + 1)]
}

/** Seconds. */
const mostSuspicious = 60
const longRow = 3
const steadyMs = 60_000
const healthy: Health = { falls: 0, silences: 0, unsigned: 0, isLeft: false }
