import { readFile } from 'node:fs/promises'

import t from 'tap'

import { problems } from '../../src/errors.ts'
import { openapiText } from '../../tools/openapi.ts'
import { openStandIn } from './stand-in.ts'

interface Described {
  readonly paths: Record<string, Record<string, Operation>>
  readonly components: { readonly responses: Record<string, Response> }
}

interface Operation {
  readonly operationId: string
  readonly summary: string
  readonly tags: readonly string[]
  readonly requestBody?: { readonly content: Record<string, { readonly schema: object }> }
  readonly responses: Record<string, Response>
}

interface Response {
  readonly $ref?: string
  readonly description: string
  readonly content?: Record<
    string,
    { readonly schema: { readonly allOf?: readonly { properties?: { code: { enum: string[] } } }[] } }
  >
}

t.test('the committed description is what the routes make', async (t) => {
  const committed = await readFile(new URL('../../openapi/chancery.json', import.meta.url), 'utf8')
  t.equal(committed, await openapiText(), 'node tools/openapi.ts writes it anew')
  t.equal(await openapiText(), committed, 'twice the same')
})

t.test('every call says what it does, what it takes, and every answer it can give', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  const described = app.swagger() as unknown as Described
  const named = new Set<string>()
  const resolved = (response: Response): Response =>
    response.$ref === undefined
      ? response
      : (described.components.responses[response.$ref.split('/').at(-1) ?? ''] as Response)
  const codes = new Set<string>()
  for (const [path, operations] of Object.entries(described.paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      const call = `${method.toUpperCase()} ${path}`
      t.notOk(named.has(operation.operationId), `${call} has a name of its own`)
      named.add(operation.operationId)
      t.ok(operation.summary && operation.tags.length === 1, call)
      if (method === 'post' || method === 'put') t.ok(operation.requestBody, `${call} describes its body`)
      for (const [status, answer] of Object.entries(operation.responses)) {
        const { description, content = {} } = resolved(answer)
        t.ok(description && description !== 'Default Response', `${call} ${status}`)
        const problem = content['application/problem+json']?.schema.allOf?.[1]?.properties?.code.enum
        for (const code of problem ?? []) {
          codes.add(code)
          t.equal(problems[code as keyof typeof problems].status, Number(status), `${call} ${code}`)
        }
      }
      t.ok(operation.responses['500'], `${call} may fail`)
    }
  }
  const unreachable = ['request.method', 'rate.limited']
  t.same(
    Object.keys(problems)
      .filter((code) => !codes.has(code))
      .sort(),
    unreachable.sort(),
    'every code belongs to a call',
  )
})

t.test('the pages to read it with load everything from here', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  const page = await app.inject('/docs/')
  t.equal(page.statusCode, 200)
  t.match(page.headers['content-security-policy'], /default-src 'self'.*script-src 'self';/)
  const assets = [...page.body.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, asset = '']) => asset)
  t.ok(assets.length > 3)
  for (const asset of assets) {
    t.notMatch(asset, /^(https?:)?\/\//)
    t.equal((await app.inject(new URL(asset, 'https://x/docs/').pathname)).statusCode, 200, asset)
  }
  t.notMatch(page.body, /<script>/, 'no script inline, which the policy would refuse')
  t.same((await app.inject('/openapi.json')).json(), JSON.parse(JSON.stringify(app.swagger())))
})
