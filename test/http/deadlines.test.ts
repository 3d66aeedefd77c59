/** Whatever is away behind them and says nothing, calls are answered in time. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { mock } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'

import type { LightMyRequestResponse } from 'fastify'
import t from 'tap'

import { roles } from '../../src/ca/access/access.ts'
import { batchPath, handlerTimeout } from '../../src/http/bounds.ts'
import { callerFor, openStandIn, reached } from './stand-in.ts'

const never = (): Promise<never> => new Promise(() => {})
const silent = <T extends object>(known: object = {}): T =>
  new Proxy(known as T, { get: (target, property) => Reflect.get(target, property) ?? never })

const grants = roles.flatMap((role) => callerFor(`${role}_`).grants)
const { app } = await openStandIn({
  identities: reached({ bearer: async (token: string) => ({ ...callerFor(token), grants }) }),
  ...{ policies: silent(), access: silent(), accesses: silent(), issuerLife: silent() },
  ...{ revocations: silent(), crlImports: silent(), massRevocations: silent(), approvals: silent() },
  ...{ checkpoints: silent(), tiles: silent(), records: silent({ walk: silent() }), renewalInfos: never },
  issuance: silent({ pending: 0 }),
  providers: silent({ issuedBy: () => undefined }),
  health: { ready: never },
})
t.teardown(() => app.close())

interface Described {
  readonly $ref?: string
  readonly example?: unknown
  readonly examples?: readonly unknown[]
}
interface Operation {
  readonly parameters?: readonly { readonly name?: string }[]
  readonly requestBody?: { readonly content: Readonly<Record<string, Described & { readonly schema: Described }>> }
}
const description: {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: { readonly schemas: Readonly<Record<string, Described>> }
} = JSON.parse(await readFile(join(import.meta.dirname, '../../openapi/chancery.json'), 'utf8'))
const exampleOf = ({ $ref, example, examples }: Described): unknown =>
  $ref === undefined
    ? (example ?? examples?.[0])
    : exampleOf(description.components.schemas[$ref.split('/').at(-1) as string] ?? {})

const values: Readonly<Record<string, string>> = {
  ...{ serial: '4a'.repeat(16), id: '0193f2b4-6a51-7c1e-9d0b-3f1c2a4b5d6e', digest: 'ab'.repeat(32), version: '1' },
  ...{ name: 'server', path: '0/000', code: 'csr.pem' },
}

/** What is known before anything is asked of what is behind: examples of chains and lists are none. */
const atOnce: Readonly<Record<string, string | undefined>> = {
  'get /livez': undefined,
  'get /problems/{code}': values['code'],
  'post /v1/certificates/{serial}/renewal': 'renewal.certificate',
  'put /v1/issuers/{name}': 'issuer.chain',
  'put /v1/issuers/{name}/chains': 'issuer.chain',
  'post /v1/issuers/{name}/crl': 'crl.invalid',
}

/** By a clock that goes on when the call waits; undefined while there is no answer. */
const ask = async (method: string, path: string, { parameters = [], requestBody }: Operation) => {
  const [type, content] = Object.entries(requestBody?.content ?? {})[0] ?? []
  const isCreated = method === 'put' && parameters.some(({ name }) => name === 'If-None-Match')
  const body = content && (exampleOf(content) ?? exampleOf(content.schema))
  /** A document is put under the name in it. */
  const told: Readonly<Record<string, string>> = { ...values, ...(isCreated && (body as { readonly name: string })) }
  let answer: LightMyRequestResponse | undefined
  void app
    .inject({
      method: method as 'GET',
      url: path.replaceAll(/\{(\w+)\}/g, (_, name: string) => told[name] ?? name),
      headers: {
        authorization: 'Bearer admin_',
        ...(type && { 'content-type': type }),
        ...(isCreated && { 'if-none-match': '*' }),
      },
      // What has no example is read once it is known whose key it has to be by.
      ...(content && { payload: JSON.stringify(body ?? 'a proof') }),
    })
    .then((one) => {
      answer = one
    })
  for (const milliseconds of [0, handlerTimeout - 1, 1]) {
    mock.timers.tick(milliseconds)
    for (let turns = 0; turns < 100 && answer === undefined; turns += 1) await nextTurn()
    if (answer !== undefined) return { answer, isAtOnce: milliseconds === 0 }
  }
  return undefined
}

mock.timers.enable({ apis: ['setTimeout'] })
t.teardown(() => mock.timers.reset())

for (const [path, operations] of Object.entries(description.paths))
  for (const [method, operation] of Object.entries(operations)) {
    const call = `${method} ${path}`
    // A minute for each batch: batch-patience.test.ts has those.
    if (path === batchPath) continue
    t.test(call, async (t) => {
      const told = await ask(method, path, operation)
      const isAtOnce = Object.hasOwn(atOnce, call)
      t.match(told, { isAtOnce }, 'it is answered')
      t.equal(told?.answer.json().code, isAtOnce ? atOnce[call] : 'overload.deadline')
    })
  }
