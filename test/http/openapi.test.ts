import { readFile } from 'node:fs/promises'

import t from 'tap'

import { problems } from '../../src/errors.ts'
import { formNumbers, formWords } from '../../src/http/api/schemas.ts'
import { openapiText } from '../../tools/openapi.ts'
import { openStandIn } from './stand-in.ts'

interface Described {
  readonly tags: readonly { readonly name: string; readonly description: string }[]
  readonly paths: Record<string, Record<string, Operation>>
  readonly components: {
    readonly responses: Record<string, Response>
    readonly schemas: Record<string, object>
    readonly securitySchemes: object
  }
}

interface Parameter {
  readonly required?: boolean
  readonly example?: unknown
  readonly schema: { readonly examples?: readonly unknown[] }
}

interface Operation {
  readonly operationId: string
  readonly parameters?: readonly object[]
  readonly summary: string
  readonly description?: string
  readonly tags: readonly string[]
  readonly requestBody?: { readonly content: Record<string, { readonly schema: object; readonly example?: unknown }> }
  readonly responses: Record<string, Response>
}

interface Response {
  readonly $ref?: string
  readonly description: string
  readonly content?: Record<
    string,
    {
      readonly schema: { readonly allOf?: readonly { properties?: { code: { enum: string[] } } }[] }
      readonly example?: unknown
    }
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
  const codes = new Set<string>()
  for (const [path, operations] of Object.entries(described.paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      const call = `${method.toUpperCase()} ${path}`
      t.notOk(named.has(operation.operationId), `${call} has a name of its own`)
      named.add(operation.operationId)
      t.ok(operation.summary && operation.description && operation.tags.length === 1, call)
      t.ok(
        described.tags.some(({ name, description }) => operation.tags.includes(name) && description),
        `${call} stands under a heading that says what it is about`,
      )
      if (method === 'post' || method === 'put') t.ok(operation.requestBody, `${call} describes its body`)
      for (const [status, answer] of Object.entries(operation.responses)) {
        const { description, content = {} } =
          answer.$ref === undefined
            ? answer
            : (described.components.responses[answer.$ref.split('/').at(-1) ?? ''] as Response)
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
  // The last two are the public listener's.
  const unreachable = ['request.method', 'crl.not_found', 'crl.unavailable']
  t.same(
    Object.keys(problems)
      .filter((code) => !codes.has(code))
      .sort(),
    unreachable.sort(),
    'every code belongs to a call',
  )
})

t.test('whoever makes types of it finds one wherever there are values to choose from', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  const untyped = (node: unknown, place: string): readonly string[] => {
    if (typeof node !== 'object' || node === null) return []
    const inner = Object.entries(node).flatMap(([key, member]) => untyped(member, `${place}/${key}`))
    return 'enum' in node && Array.isArray(node.enum) && !('type' in node) ? [place, ...inner] : inner
  }
  t.same(untyped(app.swagger(), ''), [])
  t.same(untyped({ a: { enum: ['x'] } }, ''), ['/a'], 'and what has none is found')
})

t.test(
  'what stands for a number or a truth value in a query or a path is described as one, as far as it is taken',
  async (t) => {
    const { app } = await openStandIn()
    t.teardown(() => app.close())
    const { paths } = app.swagger() as unknown as Described
    const parametersOf = (path: string) =>
      Object.fromEntries(
        (paths[path]?.['get']?.parameters ?? []).map((parameter) => {
          const { name, schema, example } = parameter as { name: string; schema: object; example?: unknown }
          return [name, { ...schema, ...(example !== undefined && { example }) }]
        }),
      )
    const index = { type: 'integer', minimum: 0, maximum: 999_999_999_999_999, examples: [1041] }
    const { limit, count, at, fromIndex, beforeIndex, after } = parametersOf('/v1/events')
    t.same({ at, fromIndex, beforeIndex }, { at: index, fromIndex: index, beforeIndex: index })
    t.same({ limit, count }, { limit: { type: 'integer', minimum: 1, maximum: 1_000 }, count: { type: 'boolean' } })
    t.match(after, { type: 'string', format: 'date-time' })
    t.same(parametersOf('/v1/profiles/{name}/versions/{version}')['version'], {
      ...{ type: 'integer', minimum: 1, maximum: 999_999_999 },
      example: 1,
    })
    for (const [pattern, { minimum, maximum }] of formNumbers) {
      const takes = (value: number) => new RegExp(pattern).test(String(value))
      t.same([minimum - 1, minimum, maximum, maximum + 1].map(takes), [false, true, true, false], pattern)
    }
  },
)

t.test('nobody is answered with a regular expression: every form that a call takes has words', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  const { paths, components } = app.swagger() as unknown as Described
  const formsIn = (node: unknown): readonly { readonly pattern: string; readonly description?: string }[] => {
    if (typeof node !== 'object' || node === null) return []
    const inner = Object.values(node).flatMap(formsIn)
    if ('$ref' in node) inner.push(...formsIn(components.schemas[String(node.$ref).split('/').at(-1) ?? '']))
    return 'pattern' in node && typeof node.pattern === 'string' ? [node as { pattern: string }, ...inner] : inner
  }
  const seen = new Set<string>()
  for (const [path, operations] of Object.entries(paths))
    for (const [method, { parameters, requestBody }] of Object.entries(operations)) {
      // Documents are judged apart, by what their members are described as (policy/shape.ts).
      const isDocument = method === 'put'
      for (const { pattern, description } of formsIn([parameters, isDocument ? [] : requestBody])) {
        t.match(formWords.get(pattern), /^must (be|have) /, `${method} ${path} ${pattern} ${description}`)
        seen.add(pattern)
      }
      for (const form of isDocument ? formsIn(requestBody) : []) t.ok(form.description, `${path} ${form.pattern}`)
    }
  t.ok(seen.size > 15, `${seen.size} forms`)
})

t.test('a page that sends the examples of parameters sends none that may be left out', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  const { paths } = app.swagger() as unknown as Described
  const all = Object.values(paths).flatMap((path) => Object.values(path).flatMap(({ parameters = [] }) => parameters))
  const optional = (all as Parameter[]).filter(({ required }) => !required)
  t.same(
    optional.filter(({ example }) => example !== undefined),
    [],
    'swagger-ui fills in each, and 400 is all that it gets',
  )
  t.ok(optional.some(({ schema: { examples } }) => examples?.[0] === 'server'))
  t.ok((all as Parameter[]).some(({ required, example }) => required && example !== undefined))
})

t.test('the calls are where the description was read, and it says so', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  t.match(app.swagger(), { servers: [{ url: '/' }] })
})

t.test('a call that is judged by its time says that clocks may disagree', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  const { paths, components } = app.swagger() as unknown as Described
  const isTold = ({ $ref, description }: Response): boolean =>
    (components.responses[$ref?.split('/').at(-1) ?? '']?.description ?? description).includes('`clock.skewed`')
  const told = Object.values(paths)
    .flatMap((path) => Object.values(path))
    .filter(({ responses }) => Object.values(responses).some(isTold))
  t.same(told.map(({ operationId }) => operationId).sort(), [
    'approveRequest',
    'issueCertificate',
    'issueCertificates',
    'moveIssuer',
    'rejectRequest',
    'releaseCertificate',
    'renewCertificate',
    'revokeCertificate',
    'revokeCertificateByKey',
    'revokeMany',
    'withdrawRequest',
  ])
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
  t.match(page.body, /<title>Chancery: the API<[/]title>/)
  const scripts = assets.filter((asset) => asset.endsWith('/viewport.js'))
  const [script] = await Promise.all(scripts.map((asset) => app.inject(new URL(asset, 'https://x/docs/').pathname)))
  t.match(script, { headers: { 'content-type': /javascript/ }, body: /width=device-width/ }, 'a narrow one fits')
  const style = assets.find((asset) => asset.endsWith('/page.css')) ?? ''
  t.match(await app.inject(new URL(style, 'https://x/docs/').pathname), {
    headers: { 'content-type': /css/ },
    body: /\.response-col_links \{ display: none \}\n.*:focus-visible \{ outline: auto \}\n@media \(max-width/,
  })
  t.notMatch(page.body, /<script>/, 'no script inline, which the policy would refuse')
  t.same((await app.inject('/openapi.json')).json(), JSON.parse(JSON.stringify(app.swagger())))
})
