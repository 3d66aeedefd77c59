/** Chancery as an issuer of the cluster sees it: over its REST API, as one principal. Every answer becomes a value. */

import type { Answer } from '../../client/rejected.ts'
import { type Call, clientAt, isOfServer, isOfTrust, Unanswered } from '../../client/rest.ts'
import type { Violation } from '../../errors.ts'
import { Failure } from '../../lib/failure.ts'
import type { Ask, OnBehalfOf } from '../decide/asking.ts'
import { areRoots } from '../decide/delivery.ts'
import { bounded, type Fault, type IssuedCertificate, type Outcome, type ProblemDocument } from '../decide/outcome.ts'

export interface Place {
  /** `https://host:port`. */
  readonly server: string
  /** PEM. */
  readonly ca: string
  readonly token: string
}

export interface Probing {
  readonly profile: string
  readonly authority?: string | undefined
  readonly onBehalfOf?: OnBehalfOf | undefined
}

export interface Chancery {
  /** Asks for a certificate, or asks again: under one key there is at most one. */
  issue(ask: Ask, signal: AbortSignal): Promise<Outcome>
  /** Whether this principal may ask for this profile here; undefined if so. Nothing is issued, and nothing recorded. */
  probe(probing: Probing, signal: AbortSignal): Promise<Fault | undefined>
  /** The names of the issuers of an authority. */
  issuersOf(authority: string, signal: AbortSignal): Promise<readonly string[] | Fault>
  /** PEM of the roots above a certificate that was issued to us. */
  rootsOf(serial: string, signal: AbortSignal): Promise<string | Fault>
}

export const openChancery = (place: Place): Chancery => {
  const client = clientAt(place, bounds)
  const call = (method: string, path: string, call: Call): Promise<Answer | Fault> =>
    client.call(method, path, call).catch(faultOf)
  return {
    issue: async ({ idempotencyKey, body }, signal) => {
      const headers = { 'idempotency-key': idempotencyKey }
      const answer = await call('POST', '/v1/certificates', { headers, body, signal })
      return 'kind' in answer ? { kind: 'fault', fault: answer } : readIssued(answer)
    },
    probe: async ({ profile, authority, onBehalfOf }, signal) => {
      const body = { csr: probeRequest, profile, ...(onBehalfOf && { onBehalfOf }) }
      const answer = await call('POST', '/v1/certificates', { query: { dryRun: 'true' }, body, signal })
      if ('kind' in answer) return answer
      const { allowed, authority: signing } = bodyOf(answer)
      if (typeof allowed !== 'boolean') return foreign(answer)
      // Before anything is signed that nobody would get.
      return authority === undefined || authority === signing ? undefined : otherAuthority(profile, authority)
    },
    issuersOf: async (authority, signal) => {
      const answer = await call('GET', `/v1/authorities/${encodeURIComponent(authority)}`, { signal })
      if ('kind' in answer) return answer
      const { issuers } = bodyOf(answer)
      const names = Array.isArray(issuers) ? issuers.map((issuer: unknown) => memberOf(issuer, 'name')) : []
      return Array.isArray(issuers) && names.every((name) => typeof name === 'string') ? names : foreign(answer)
    },
    rootsOf: async (serial, signal) => {
      const path = `/v1/certificates/${encodeURIComponent(serial)}/bundle`
      const answer = await call('GET', path, { query: { anchors: 'roots' }, accept: 'application/x-pem-file', signal })
      if ('kind' in answer) return answer
      return areRoots(answer.text) ? answer.text : foreign(answer)
    },
  }
}

/** In words of the issuer's spec alone: whatever a server answers, its status is the same at each look. */
export const otherAuthority = (profile: string, authority: string): Fault => ({
  kind: 'misconfigured',
  message: `profile ${profile} is signed by another authority than ${authority}`,
})

/** Only what we use of it, and only as what it must be. */
const readIssued = (answer: Answer): Outcome => {
  const body = bodyOf(answer)
  if (answer.status === 202 && typeof body['id'] === 'string') return { kind: 'waiting', id: body['id'] }
  if (answer.status === 201 && isIssued(body)) {
    const { serial, issuer, certificate, chain } = body
    const replayed = body.replayed === true
    const answeredAt = new Date(String(answer.headers['date']))
    const dated = Number.isNaN(answeredAt.getTime()) ? {} : { answeredAt }
    return { kind: 'issued', issued: { serial, issuer, certificate, chain, replayed, ...dated } }
  }
  return { kind: 'fault', fault: foreign(answer) }
}

const isIssued = (body: object): body is IssuedCertificate => {
  const { serial, issuer, certificate, chain } = body as Partial<Record<keyof IssuedCertificate, unknown>>
  return (
    typeof serial === 'string' &&
    /^[0-9a-f]{32}$/.test(serial) &&
    typeof issuer === 'string' &&
    typeof certificate === 'string' &&
    Array.isArray(chain) &&
    chain.length <= mostAbove &&
    chain.every((pem) => typeof pem === 'string')
  )
}

/** Whoever answers may put anything there: what is no text is not made one, which an object may not let be done. */
const memberOf = (value: unknown, name: string): unknown => ((value ?? {}) as Readonly<Record<string, unknown>>)[name]

const bodyOf = (answer: Answer): Readonly<Record<string, unknown>> => {
  try {
    const body = answer.json<unknown>()
    return typeof body === 'object' && body !== null ? (body as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}

const foreign = ({ status }: Answer): Fault => ({
  kind: 'foreign',
  message: `the server answered ${status} with something that is not of Chancery`,
})

const faultOf = (error: unknown): Fault => {
  if (!(error instanceof Failure)) throw error
  const problem = readProblem(error.problem)
  if (problem) return { kind: 'problem', problem }
  const message = bounded(error instanceof Unanswered ? error.fact : error.message.replace(/\.$/, ''), mostDetail)
  const { cause } = error
  if (error.kind === 'usage') {
    if (!isOfTrust(cause) || isOfServer(cause)) return { kind: 'misconfigured', about: 'server', message }
    return {
      kind: 'misconfigured',
      about: 'trust',
      message: `${message}: see spec.caBundle, or caFile in the settings`,
    }
  }
  return { kind: error.kind === 'later' ? 'unreachable' : 'foreign', message }
}

/** Whoever answers may say anything: no more is kept of it than what is used, and no longer than anybody reads. */
const readProblem = (problem: unknown): ProblemDocument | undefined => {
  const said = (problem ?? {}) as Partial<Record<keyof ProblemDocument, unknown>>
  const { code, status, detail, retryable, retryAfter, requestId, violations } = said
  if (typeof code !== 'string' || typeof detail !== 'string' || typeof retryable !== 'boolean') return undefined
  if (retryAfter !== undefined && typeof retryAfter !== 'number') return undefined
  return {
    ...{ code: bounded(code, 64), detail: bounded(detail, mostDetail), retryable },
    ...(typeof status === 'number' && { status }),
    ...(retryAfter !== undefined && { retryAfter }),
    ...(typeof requestId === 'string' && { requestId: bounded(requestId, 64) }),
    ...(Array.isArray(violations) && { violations: violations.slice(0, mostViolations).map(readViolation) }),
  }
}

const readViolation = (violation: unknown): Violation => {
  const part = (name: keyof Violation): string => {
    const said = memberOf(violation, name)
    return typeof said === 'string' ? bounded(said, 512) : ''
  }
  return { check: part('check'), field: part('field'), value: part('value'), reason: part('reason') }
}

/** Chancery gives up an answer after 4 s to know who asks and 8 s to issue. */
const bounds = { longestMs: 15_000, mostOctets: 1024 * 1024 } as const
const mostAbove = 16
const mostDetail = 4_096
const mostViolations = 64
/** A request for a key that was thrown away, with neither subject nor names: whether it is allowed does not matter. */
const probeRequest = `-----BEGIN CERTIFICATE REQUEST-----
MIG7MGICAQAwADBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABC/qqzEQ/85JJlUh
C4Rf9TsMXah4BXfQDody5PXLAeiWSQBcLfsmz14nPuozgcV3WEnQr86ZnCFFtcAG
IIy3By2gADAKBggqhkjOPQQDAgNJADBGAiEA5jWj1Lq30QdnxGanSRMyw7+XJtQ4
0gbbBPOAIJwWCvECIQDQLcODAcL+9XeDSQBW3kGJC76ocS466I7wCG3lWEZcOg==
-----END CERTIFICATE REQUEST-----
`
