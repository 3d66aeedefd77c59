/** What a server answers that says it is Chancery: whatever it is, it becomes a value. */
import { createServer as createPlainServer } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'

import { Registry } from 'prom-client'
import t from 'tap'

import type { Fault } from '../../src/kubernetes/decide/outcome.ts'
import { openMeter } from '../../src/kubernetes/metrics.ts'
import { openAsker } from '../../src/kubernetes/reconcile/asker.ts'
import { type Chancery, openChancery } from '../../src/kubernetes/reconcile/chancery.ts'
import { openClientCa, serverAuth } from '../helpers/clients.ts'
import { ip } from '../x509/build.ts'
import { issuerOf } from './objects.ts'

const { signal } = new AbortController()

/** Resolves with a client of a server that answers everything with this. */
const openAnswering = async (
  t: { teardown(close: () => Promise<void>): void },
  { status = 200, body, address = '7f000001', trusts, to = 3_600 }: Answering,
): Promise<Chancery> => {
  const ca = openClientCa('HTTPS of a server')
  const { cert, key } = ca.certify({ usage: serverAuth, names: [ip(address)], to })
  const server = createServer({ cert, key }, (_, response) => {
    const type = status < 300 ? 'application/json' : 'application/problem+json'
    response.writeHead(status, { 'content-type': type }).end(JSON.stringify(body))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
  const { port } = server.address() as AddressInfo
  return openChancery({ server: `https://127.0.0.1:${port}`, ca: trusts ?? ca.pem, token: 'token' })
}

interface Answering {
  readonly status?: number
  readonly body: unknown
  /** In its certificate (hex). */
  readonly address?: string
  /** In place of the CA of its certificate. */
  readonly trusts?: string
  /** Until when that holds, in seconds from now. */
  readonly to?: number
}

/** Nothing can make a text of it. */
const unspeakable = { toString: 1 }
const foreign = { kind: 'foreign', message: /^the server answered 200 with something that is not of Chancery$/ }

t.test('names of issuers are texts, or it is not Chancery', async (t) => {
  for (const issuers of [[null], [{}], [{ name: unspeakable }], [{ name: 'a' }, { name: 1 }], {}, undefined]) {
    const chancery = await openAnswering(t, { body: { issuers } })
    t.match(await chancery.issuersOf('default', signal), foreign, JSON.stringify(issuers))
  }
  const sound = await openAnswering(t, { body: { issuers: [{ name: 'a' }, { name: 'b' }] } })
  t.same(await sound.issuersOf('default', signal), ['a', 'b'])
})

t.test('what a profile is signed by is told in words of the issuer alone, the same at each look', async (t) => {
  for (const authority of ['other', '\u001b[31m', unspeakable, null, undefined, 'A'.repeat(100_000)]) {
    const chancery = await openAnswering(t, { body: { allowed: true, authority } })
    t.same(await chancery.probe({ profile: 'server', authority: 'default' }, signal), {
      kind: 'misconfigured',
      message: 'profile server is signed by another authority than default',
    })
    t.equal(await chancery.probe({ profile: 'server' }, signal), undefined)
  }
  const sound = await openAnswering(t, { body: { allowed: true, authority: 'default' } })
  t.equal(await sound.probe({ profile: 'server', authority: 'default' }, signal), undefined)
})

t.test('a problem whose members are not what they should be is read as far as it is one', async (t) => {
  const sound = { code: 'san.forbidden', detail: 'No.', next: 'Ask less.', requestId: 'r', retryable: false }
  const violation = { check: 'names.dns', field: 'dns', value: unspeakable, reason: 'no' }
  const chancery = await openAnswering(t, {
    status: 422,
    body: { ...sound, title: unspeakable, violations: [violation, null, { ...violation, value: 'x.test' }] },
  })
  const ask = { idempotencyKey: 'k', body: { csr: '', profile: 'server' } }
  t.match(await chancery.issue(ask, signal), {
    fault: { kind: 'problem', problem: { code: 'san.forbidden', violations: [{ value: 'x.test' }] } },
  })
  for (const body of [{ ...sound, detail: unspeakable }, { ...sound, code: unspeakable }, null, []]) {
    const other = await openAnswering(t, { status: 422, body })
    t.match(await other.issue(ask, signal), { kind: 'fault', fault: { kind: 'foreign' } })
  }
})

t.test('a certificate is texts, or it is not Chancery', async (t) => {
  const ask = { idempotencyKey: 'k', body: { csr: '', profile: 'server' } }
  const issued = { serial: 'a'.repeat(32), issuer: 'default', certificate: 'pem', chain: ['pem'] }
  for (const [member, value] of Object.entries({ issuer: unspeakable, certificate: null, chain: [unspeakable] })) {
    const chancery = await openAnswering(t, { status: 201, body: { ...issued, [member]: value } })
    t.match(await chancery.issue(ask, signal), { kind: 'fault', fault: { kind: 'foreign' } }, member)
  }
  const sound = await openAnswering(t, { status: 201, body: issued })
  t.match(await sound.issue(ask, signal), { kind: 'issued', issued: { ...issued, replayed: false } })
  const again = await openAnswering(t, { status: 201, body: { ...issued, replayed: true } })
  t.match(await again.issue(ask, signal), { kind: 'issued', issued: { ...issued, replayed: true } })
})

t.test('what a server says once it has signed is in its words, and no fault of the request', async (t) => {
  const problem = { code: 'auth.forbidden', detail: 'Not you.', retryable: false }
  const place: Chancery = {
    issue: async () => ({
      kind: 'issued',
      issued: { serial: 'a'.repeat(32), issuer: 'one', certificate: '', chain: [] },
    }),
    probe: async () => undefined,
    issuersOf: async (authority) => (authority === 'asked' ? ['two'] : { kind: 'problem', problem }),
    rootsOf: async () => '',
  }
  const asker = openAsker({
    ...{ places: { of: async () => place, forget: () => {} }, meter: openMeter(new Registry()), now: () => 0 },
  })
  const told = async (authority: string) => {
    const issuer = issuerOf({ authority })
    const { outcome } = await asker.ask(issuer, { idempotencyKey: 'k', body: { csr: '', profile: 'server' } }, signal)
    return outcome
  }
  t.match(await told('refused'), { fault: { kind: 'foreign', message: 'Not you (auth.forbidden)' } })
  const message = 'profile server is signed by another authority than asked'
  t.match(await told('asked'), { fault: { kind: 'misconfigured', message } })
})

const served: Chancery = {
  issue: async () => ({
    kind: 'issued',
    issued: { serial: 'a'.repeat(32), issuer: 'one', certificate: '', chain: [] },
  }),
  probe: async () => undefined,
  issuersOf: async () => ['one'],
  rootsOf: async () => 'roots',
}
const askerAt = (place: Partial<Chancery>, forget = (): void => {}) =>
  openAsker({
    ...{
      places: { of: async () => ({ ...served, ...place }), forget },
      meter: openMeter(new Registry()),
      now: () => 0,
    },
  })
const asked = { idempotencyKey: 'k', body: { csr: '', profile: 'server' } }

t.test('a token is read anew after what it may be the cause of, and not after what Chancery has decided', async (t) => {
  const problem = (code: string): Fault => ({ kind: 'problem', problem: { code, detail: 'No.', retryable: false } })
  for (const [fault, isForgotten] of [
    [problem('auth.token.unknown'), true],
    [problem('san.forbidden'), false],
    [{ kind: 'unreachable', message: 'nobody' }, true],
    [{ kind: 'misconfigured', message: 'not trusted' }, true],
  ] as const) {
    let forgotten = 0
    const asker = askerAt({ issue: async () => ({ kind: 'fault', fault }), probe: async () => fault }, () => {
      forgotten += 1
    })
    t.same(await asker.ask(issuerOf(), asked, signal), { outcome: { kind: 'fault', fault } })
    t.same(await asker.probe(issuerOf(), signal), fault)
    t.equal(forgotten, isForgotten ? 2 : 0, JSON.stringify(fault))
  }
  const sound = askerAt({}, () => t.fail('nothing is wrong with it'))
  t.equal(await sound.probe(issuerOf(), signal), undefined)
  t.same(Object.keys(await sound.ask(issuerOf(), asked, signal)), ['outcome'])
})

t.test('nothing more is asked of what is not issued, and roots that do not come are a fault', async (t) => {
  const issuer = issuerOf({ authority: 'default', includeCA: true })
  t.match(await askerAt({}).ask(issuer, asked, signal), { outcome: { kind: 'issued' }, roots: 'roots' })
  const waiting = { kind: 'waiting', id: '1' } as const
  t.same(await askerAt({ issue: async () => waiting }).ask(issuer, asked, signal), { outcome: waiting })
  const busy = { code: 'overload.queue', detail: 'Later.', retryable: true, retryAfter: 7 }
  const fault: Fault = { kind: 'problem', problem: busy }
  t.same(await askerAt({ rootsOf: async () => fault }).ask(issuer, asked, signal), {
    outcome: { kind: 'fault', fault },
  })
})

t.test('an issuer is probed for what its requests will ask: on behalf of others, or not', async (t) => {
  const told: unknown[] = []
  const asker = askerAt({
    probe: async ({ onBehalfOf }) => {
      told.push(onBehalfOf?.user)
      return undefined
    },
  })
  for (const onBehalfOf of [undefined, true, false])
    await asker.probe(issuerOf({ ...(onBehalfOf !== undefined && { onBehalfOf }) }), signal)
  t.same(told, ['chancery.dev:check', 'chancery.dev:check', undefined])
})

t.test('once the lease is lost nothing more is asked, and no answer counts', async (t) => {
  const issuer = issuerOf({ authority: 'default', includeCA: true })
  const calls = ['issue', 'issuersOf', 'rootsOf'] as const
  for (const [i, last] of ['of', ...calls, 'probe'].entries()) {
    const lost = new AbortController()
    const made: string[] = []
    const noted = <A extends unknown[], T>(name: string, answer: (...args: A) => Promise<T>) => {
      return async (...args: A): Promise<T> => {
        made.push(name)
        if (name === last) lost.abort(new Error('lost'))
        return answer(...args)
      }
    }
    const place: Chancery = {
      ...{ issue: noted('issue', served.issue), probe: noted('probe', served.probe) },
      ...{ issuersOf: noted('issuersOf', served.issuersOf), rootsOf: noted('rootsOf', served.rootsOf) },
    }
    const asker = openAsker({
      ...{ places: { of: noted('of', async () => place), forget: () => {} } },
      ...{ meter: openMeter(new Registry()), now: () => 0 },
    })
    if (last === 'probe' || last === 'of') await t.rejects(asker.probe(issuer, lost.signal), { message: 'lost' }, last)
    if (last !== 'probe') await t.rejects(asker.ask(issuer, asked, lost.signal), { message: 'lost' }, last)
    const expected = last === 'of' ? ['of', 'of'] : last === 'probe' ? ['of', 'probe'] : ['of', ...calls.slice(0, i)]
    t.same(made, expected, last)
  }
})

t.test('whether a server is not trusted for what we trust, or for what it shows', async (t) => {
  const probe = async (how: Omit<Answering, 'body'>) => {
    const chancery = await openAnswering(t, { body: { allowed: true, authority: 'default' }, ...how })
    return chancery.probe({ profile: 'server' }, signal)
  }
  const trusts = openClientCa('Another').pem
  t.match(await probe({ trusts }), { kind: 'misconfigured', about: 'trust', message: /trust anchor/ })
  const message = /not for it, or not for now \(ERR_TLS_CERT_ALTNAME_INVALID\)/
  t.match(await probe({ address: '7f000002' }), { kind: 'misconfigured', about: 'server', message })
  const plain = createPlainServer((_, response) => response.end('{}'))
  await new Promise<void>((resolve) => plain.listen(0, '127.0.0.1', resolve))
  t.teardown(() => plain.close())
  const server = `https://127.0.0.1:${(plain.address() as AddressInfo).port}`
  t.same(await openChancery({ server, ca: trusts, token: 'token' }).probe({ profile: 'server' }, signal), {
    ...{ kind: 'misconfigured', about: 'server' },
    message: `${server} speaks no TLS (wrong version number): it may be a port for plain HTTP`,
  })
})

t.test('what is told of a server is for who reads a condition, and the same at each look', async (t) => {
  const told = async (how: Omit<Answering, 'body'>) => {
    const fault = await (await openAnswering(t, { body: {}, ...how })).probe({ profile: 'server' }, signal)
    return fault && 'message' in fault ? fault.message.replace(/^\S+:\d+ /, '') : ''
  }
  const over = 'shows a certificate that is not for it, or not for now (CERT_HAS_EXPIRED)'
  t.equal(await told({ to: -30 }), over, 'and no time')
  t.equal(
    await told({ trusts: openClientCa('Another').pem }),
    'does not show a certificate that the trust anchor vouches for (UNABLE_TO_VERIFY_LEAF_SIGNATURE): ' +
      'see spec.caBundle, or caFile in the settings',
  )
})
