/** Visits by themselves: what a connection that breaks leaves behind. */
import { EventEmitter } from 'node:events'
import { mock } from 'node:test'

import type { FastifyRequest } from 'fastify'
import t from 'tap'

import { Problem, type ProblemCode } from '../../src/errors.ts'
import { type AdmissionDeps, openAdmission } from '../../src/http/admission.ts'
import { handlerTimeout } from '../../src/http/bounds.ts'

const open = (concurrent: number, more: object = {}) =>
  openAdmission({
    addressLimits: { requestsPerSecond: 1_000, concurrent, failedAuthentications: 10 },
    proxies: { networks: [], header: 'forwarded' },
    replicas: () => 1,
    metrics: { authenticated: () => {}, limited: () => {} },
    clock: () => new Date(),
    principalLimits: { enter: () => undefined },
    ...more,
  } as unknown as AdmissionDeps)

const connect = (): EventEmitter => Object.assign(new EventEmitter(), { remoteAddress: '192.0.2.1' })
const requestOn = (socket: EventEmitter): FastifyRequest =>
  ({ headers: {}, raw: { socket } }) as unknown as FastifyRequest

const limited = { code: 'limit.failed_authentication' }

interface Showing {
  readonly token?: string
  readonly certificate?: string
  readonly outlivesDatabase?: boolean
}

const showing = ({ token, certificate, outlivesDatabase }: Showing): FastifyRequest => {
  const raw = certificate && Buffer.from(certificate)
  const socket = Object.assign(connect(), { getPeerX509Certificate: () => raw && { raw } })
  const routeOptions = { url: '/', config: { outlivesDatabase } }
  const headers = token === undefined ? {} : { authorization: `Bearer ${token}` }
  return { headers, raw: { socket }, routeOptions } as unknown as FastifyRequest
}

t.test('of two requests on one connection the one that ends is given back, and the other after it has gone', (t) => {
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => mock.timers.reset())
  const admission = open(2)
  const [socket, other] = [connect(), connect()]
  const enter = (on: EventEmitter): FastifyRequest => {
    const request = requestOn(on)
    admission.admitAnyone(request)
    return request
  }
  const isFull = (): boolean => {
    try {
      enter(other).visit?.end()
      return false
    } catch (error) {
      t.match(error, { code: 'limit.address_concurrent' })
      return true
    }
  }
  const first = enter(socket)
  enter(socket)
  t.ok(isFull())
  first.visit?.end()
  t.notOk(isFull())
  const third = enter(other)
  socket.emit('close')
  mock.timers.tick(handlerTimeout - 1)
  t.ok(isFull(), 'what it had begun is still under way')
  mock.timers.tick(1)
  t.notOk(isFull())
  third.visit?.end()
  t.notOk(isFull(), 'each is given back once')
  enter(other)
  enter(other)
  t.ok(isFull())
  t.end()
})

t.test('only what may be a guess counts as a failed authentication', async (t) => {
  const counts: readonly (readonly [code: ProblemCode, isGuess: boolean])[] = [
    ['auth.invalid', true],
    ['auth.expired', true],
    ['renewal.foreign', true],
    ['auth.missing', false],
    ['renewal.certificate', false],
    ['auth.forbidden', false],
    ['auth.unavailable', false],
    ['db.unavailable', false],
    ['limit.requests', false],
  ]
  for (const [code, isGuess] of counts) {
    const bearer = async (): Promise<never> => {
      throw new Problem(code, 'no')
    }
    const admission = open(2, { identities: { bearer } })
    const ask = async (): Promise<void> => {
      const request = showing({ token: 'x' })
      await t.rejects(admission.admit(request, 'optional'), { code })
      request.visit?.end()
    }
    for (let i = 0; i < 10; i += 1) await ask()
    if (isGuess) await t.rejects(admission.admit(showing({ token: 'x' }), 'optional'), limited, code)
    else await ask()
  }
})

t.test('of two client certificates each is remembered for itself', async (t) => {
  const world = { isAway: false }
  const certificate = async (der: Buffer): Promise<object> => {
    if (world.isAway) throw new Problem('db.unavailable', 'away')
    if (`${der}` === 'bad') throw new Problem('auth.invalid', 'no')
    return { principal: `${der}`, grants: [{ role: 'operator' }] }
  }
  const admission = open(100, { identities: { takesCertificates: true, certificate } })
  const ask = (der: string, outlivesDatabase = false) =>
    admission.admit(showing({ certificate: der, outlivesDatabase }), ['operator'])
  t.match(await ask('ann', true), { principal: 'ann' })
  world.isAway = true
  t.match(await ask('ann', true), { principal: 'ann' })
  await t.rejects(ask('ann'), { code: 'db.unavailable' }, 'where the database is needed')
  await t.rejects(ask('bob', true), { code: 'db.unavailable' })
  world.isAway = false
  for (let i = 0; i < 10; i += 1) await t.rejects(ask('bad'), { code: 'auth.invalid' })
  t.match(await ask('ann'), { principal: 'ann' }, 'who was good there goes on')
  await t.rejects(ask('bob'), limited)
})

t.test('who was let in by memory alone takes no share of what only the database knows', async (t) => {
  const world = { isAway: false, entered: 0, left: 0 }
  const bearer = async (): Promise<object> => {
    if (world.isAway) throw new Problem('db.unavailable', 'away')
    return { principal: 'ann', grants: [{ role: 'operator' }] }
  }
  const enter = () => {
    world.entered += 1
    return () => {
      world.left += 1
    }
  }
  const admission = open(100, { identities: { bearer }, principalLimits: { enter } })
  const ask = async (): Promise<FastifyRequest> => {
    const request = showing({ token: 'x', outlivesDatabase: true })
    await admission.admit(request, ['operator'])
    return request
  }
  const first = await ask()
  t.match(world, { entered: 1, left: 0 })
  first.visit?.end()
  t.match(world, { entered: 1, left: 1 }, 'it is given back')
  world.isAway = true
  await ask()
  t.match(world, { entered: 1 })
  const another = admission.admit(showing({ token: 'y', outlivesDatabase: true }), ['operator'])
  await t.rejects(another, { code: 'db.unavailable' })
})
