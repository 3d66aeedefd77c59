import { subscribe, unsubscribe } from 'node:diagnostics_channel'

import ajvCompiler from '@fastify/ajv-compiler'
import t from 'tap'

import { Ask } from '../../src/http/api/schemas.ts'
import { ajvOptions, serializerCompiler, validatorCompiler } from '../../src/http/compile.ts'
import type { App } from '../../src/http/fastify.ts'
import { openPublicApp } from '../../src/http/public/app.ts'
import { cpu } from '../helpers/cpu.ts'
import { slowTest } from '../helpers/slow.ts'
import { openStandIn, reached } from './stand-in.ts'

interface Route {
  readonly method: string
  readonly url: string
  readonly config?: { readonly items?: object }
  readonly schema?: { readonly operationId?: string; readonly response?: Readonly<Record<string, object>> } & {
    readonly [part in (typeof parts)[number]]?: object
  }
}

const parts = ['params', 'querystring', 'body', 'headers'] as const

const checkOf = (schema: unknown) => validatorCompiler({ schema } as never)
const writeOf = (schema: unknown) => serializerCompiler({ schema } as never)

/** By the schema of schemas, too, which the service does without. */
const asSchema = (schema: object) => strict({ schema } as never)
const strict = ajvCompiler()({}, { customOptions: ajvOptions })

/** Of both listeners, those that Fastify and its plugins add among them. */
const allRoutes = async (): Promise<readonly Route[]> => {
  const routes: Route[] = []
  const collect = (message: unknown): void => {
    const { fastify } = message as { readonly fastify: App }
    fastify.addHook('onRoute', (route) => {
      routes.push(route as Route)
    })
  }
  subscribe('fastify.initialization', collect)
  const { app, deps } = await openStandIn()
  const publicApp = await openPublicApp({ ...deps, crls: reached({}), ocsp: reached({}), roll: deps })
  unsubscribe('fastify.initialization', collect)
  await Promise.all([app.close(), publicApp.close()])
  return routes
}

slowTest('every schema of every call compiles', async (t) => {
  for (const { method, url, config, schema = {} } of await allRoutes()) {
    for (const part of [...parts, 'items'] as const) {
      const wanted = part === 'items' ? config?.items : schema[part]
      if (wanted === undefined) continue
      t.doesNotThrow(() => asSchema(wanted), `${method} ${url} ${part}`)
      t.type(checkOf(wanted)({}), 'boolean', `${method} ${url} ${part}`)
    }
    for (const [status, answer] of Object.entries(schema.response ?? {})) {
      t.doesNotThrow(() => asSchema(answer), `${method} ${url} ${status}`)
      t.type(writeOf(answer)(nothing(answer)), 'string', `${method} ${url} ${status}`)
    }
  }
  t.throws(() => asSchema({ type: 'string', maxLength: 'long' }), /maxLength/, 'and what is none is found')
})

/** Where items may not occur twice and have no type of one value, by which the library would know them. */
const slowLists = (schema: unknown, at = ''): readonly string[] => {
  if (typeof schema !== 'object' || schema === null) return []
  const { uniqueItems, items } = schema as {
    readonly uniqueItems?: boolean
    readonly items?: { readonly type?: string }
  }
  const within = Object.entries(schema).flatMap(([name, member]) => slowLists(member, `${at}/${name}`))
  return uniqueItems && !['string', 'integer', 'boolean'].includes(String(items?.type)) ? [at, ...within] : within
}

t.test('nobody holds the event loop by a list whose items are compared each with every other', async (t) => {
  for (const { method, url, config, schema = {} } of await allRoutes())
    for (const wanted of [config?.items, schema.params, schema.querystring, schema.body])
      t.same(slowLists(wanted), [], `${method} ${url}`)
  t.same(slowLists({ properties: { a: { uniqueItems: true, items: { enum: ['b'] } } } }), ['/properties/a'])
  const check = checkOf(Ask)
  const keyUsage = Array.from({ length: 8_000 }, (_, at) => `usage${at}`)
  const took = Array.from({ length: 5 }, () => {
    const started = cpu()
    t.equal(check({ keyUsage }), false)
    return cpu() - started
  })
  t.ok(Math.min(...took) < 50, `${took} ms`)
})

/** What is written of no value at all. */
const nothing = (answer: { readonly type?: string }): unknown => (answer.type === 'string' ? '' : null)

t.test('a schema is compiled when it is first used', async (t) => {
  const [check, write] = [checkOf({ type: 'nothing' }), writeOf({ type: 'nothing' })]
  t.throws(() => check({}), /type/)
  t.throws(() => write({}), /type/)
})

t.test('those of the call that everybody makes are compiled before anybody calls', async (t) => {
  const asked = { schema: { type: 'nothing' }, method: 'POST', url: '/v1/certificates' } as never
  t.throws(() => validatorCompiler(asked), /type/)
  t.throws(() => serializerCompiler(asked), /type/)
})

t.test('schemas that say the same are compiled once', async (t) => {
  const known = { type: 'object', properties: { once: { type: 'integer' } } }
  t.equal(checkOf(known)({ once: 1 }), true)
  t.equal(writeOf(known)({ once: 1 }), '{"once":1}')
  // Compiled by itself it would be refused.
  const alike = { type: 'nothing', toJSON: () => known }
  t.equal(checkOf(alike)({ once: 1 }), true)
  t.equal(writeOf(alike)({ once: 1 }), '{"once":1}')
  const turned = { properties: { b: { type: 'string' }, a: { type: 'string' } }, type: 'object' }
  const back = { properties: { a: { type: 'string' }, b: { type: 'string' } }, type: 'object' }
  const value = { a: 'a', b: 'b' }
  t.same([writeOf(turned)(value), writeOf(back)(value)], ['{"b":"b","a":"a"}', '{"a":"a","b":"b"}'])
})

t.test('faults are those of the last value', async (t) => {
  const [check, other] = [checkOf({ type: 'string', maxLength: 3 }), checkOf({ type: 'string', maxLength: 3 })]
  t.equal(check(1), false)
  t.match(check.errors, [{ keyword: 'type' }])
  t.equal(other('long'), false)
  t.match(other.errors, [{ keyword: 'maxLength' }])
  t.match(check.errors, [{ keyword: 'type' }], 'whoever shares it')
  t.equal(check('abc'), true)
  t.equal(check.errors, null)
})
