/** Visits by themselves: what a connection that breaks leaves behind. */
import { EventEmitter } from 'node:events'
import { mock } from 'node:test'

import type { FastifyRequest } from 'fastify'
import t from 'tap'

import { type AdmissionDeps, openAdmission } from '../../src/http/admission.ts'
import { handlerTimeout } from '../../src/http/bounds.ts'

const open = (concurrent: number) =>
  openAdmission({
    addressLimits: { requestsPerSecond: 1_000, concurrent, failedAuthentications: 10 },
    proxies: { networks: [], header: 'forwarded' },
    replicas: () => 1,
    metrics: { authenticated: () => {}, limited: () => {} },
    clock: () => new Date(),
  } as unknown as AdmissionDeps)

const connect = (): EventEmitter => Object.assign(new EventEmitter(), { remoteAddress: '192.0.2.1' })
const requestOn = (socket: EventEmitter): FastifyRequest =>
  ({ headers: {}, raw: { socket } }) as unknown as FastifyRequest

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
