/**
 * An API over stand-ins: for what HTTP does itself before and after the service. Whatever reaches a stand-in ends in
 * `certificate.not_found`, so that a test sees how far a request came. Everything else is tested on the real service.
 */
import { Registry } from 'prom-client'

import type { Caller, Role } from '../../src/ca/access/access.ts'
import { openPrincipalLimits } from '../../src/ca/access/principal-limits.ts'
import type { Issued } from '../../src/ca/issuance/issuance.ts'
import { Problem } from '../../src/errors.ts'
import { openApp } from '../../src/http/app.ts'
import type { HttpDeps } from '../../src/http/deps.ts'
import type { App } from '../../src/http/fastify.ts'
import { openMetrics } from '../../src/metrics.ts'

export interface StandIn {
  readonly app: App
  readonly deps: HttpDeps
  readonly lines: Readonly<Record<string, unknown>>[]
}

/** A token of letters and underscores that begins with a role is that role's. */
export const openStandIn = async (overrides: Partial<HttpDeps> = {}): Promise<StandIn> => {
  const lines: Record<string, unknown>[] = []
  const write = (line: unknown): void => {
    lines.push(line as Record<string, unknown>)
  }
  let ids = 0
  const deps: HttpDeps = {
    issuance: reached({ pending: 0 }),
    policies: reached({}),
    access: reached({}),
    identities: reached({ bearer: async (token: string) => callerFor(token) }),
    principalLimits: openPrincipalLimits({ ...limitless, now: () => 0, clock: () => new Date(0) }),
    addressLimits: { requestsPerSecond: 1e6, concurrent: 1e6, failedAuthentications: 1e6 },
    proxies: { networks: [], header: 'x-forwarded-for' },
    replicas: () => 1,
    providers: reached({}),
    keysFault: async () => undefined,
    renewalInfos: async () => {
      throw new Problem('certificate.not_found', 'reached')
    },
    records: reached({ walk: reached({}) }),
    accesses: reached({ record: async () => 'access' }),
    issuerLife: reached({}),
    revocations: reached({}),
    crlImports: reached({}),
    massRevocations: reached({}),
    approvals: reached({}),
    checkpoints: reached({}),
    tiles: reached({}),
    health: { ready: async () => [{ name: 'key', ok: true, reason: 'signs' }] },
    recordRefusal: async () => {},
    metrics: openMetrics(new Registry()),
    log: { debug: write, info: write, warn: write, error: write },
    clock: () => new Date('2026-11-25T00:00:00Z'),
    newId: () => `request-${++ids}`,
    limits: { queue: 8, connections: 100 },
    ...overrides,
  }
  return { app: await openApp(deps), deps, lines }
}

/** Nobody has limits here. */
const limitless = { replicas: () => 1, limited: () => {} }

export const reached = <T extends object>(known: object): T =>
  new Proxy(known as T, {
    get: (target, property) =>
      Reflect.get(target, property) ??
      (async () => {
        throw new Problem('certificate.not_found', 'reached')
      }),
  })

/** What issuing comes to, where it does. */
export const issued: Issued = {
  serial: '4a'.repeat(16),
  certificate: Buffer.from('3000', 'hex'),
  chain: [Buffer.from('3000', 'hex')],
  profile: { name: 'server', version: 1 },
  issuer: 'default',
  notBefore: new Date(0),
  notAfter: new Date(1_000),
  index: 1,
  leafHash: Buffer.alloc(32),
  proof: { index: 1, hashes: [], checkpoint: '' },
  notes: [],
  replayed: false,
}

export const callerFor = (secret: string): Caller => {
  const role = secret.split('_')[0] as Role | 'nobody' | 'wrong'
  if (role === 'wrong') throw new Problem('auth.invalid', 'This token is not accepted.')
  const common = {
    id: 'grant',
    principal: `the-${role}`,
    names: null,
    revoke: false,
    createdAt: new Date(0),
    createdBy: 'test',
  }
  const profiles = role === 'requester' ? ['server'] : null
  return {
    principal: `the-${role}`,
    proof: { kind: 'token', token: 'token' },
    grants: role === 'nobody' ? [] : [{ ...common, role, profiles }],
  }
}

/** Records in which every certificate is told by this text, as many to a page as are asked for. */
export const recordsOf = (text: string, more: { readonly next?: string } = {}): HttpDeps['records'] =>
  reached({
    walk: {
      certificateTexts: async () => ({
        bounds: { size: 7, time: new Date(0) },
        range: { from: 0, before: 7 },
        count: async () => ({ rows: 0, exact: true }),
        page: async (limit: number) => ({ items: Array(limit).fill(text), ...more }),
      }),
    },
  })
