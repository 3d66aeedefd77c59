/** Whoever opens a call at /docs and sends what stands there gets what he came for. */
import t from 'tap'
import { stringify } from 'yaml'

import { openTestService } from '../helpers/service.ts'

interface Operation {
  readonly parameters?: readonly { readonly in: string; readonly name: string; readonly example?: string }[]
  readonly responses: Readonly<Record<string, { readonly content?: object }>>
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly example?: unknown }>> }
}

const service = await openTestService(t)
const { paths } = service.service.app.swagger() as unknown as { paths: Record<string, Record<string, Operation>> }

interface Try {
  readonly type?: string
  readonly token?: string
  readonly headers?: Readonly<Record<string, string>>
  /** In place of the serial that the description has. */
  readonly serial?: string
  readonly query?: string
}

const send = (call: string, { type = 'application/json', token, headers = {}, serial, query = '' }: Try = {}) => {
  const [method = '', pattern = ''] = call.split(' ')
  const { parameters = [], requestBody } = paths[pattern]?.[method.toLowerCase()] ?? {}
  const path = pattern.replaceAll(/\{(\w+)\}/g, (_, name: string) => {
    const example = parameters.find((parameter) => parameter.in === 'path' && parameter.name === name)?.example
    return encodeURIComponent((name === 'serial' ? serial : example) ?? '')
  })
  const example = requestBody?.content[type]?.example
  return service.request(method, `${path}${query}`, {
    ...(token !== undefined && { token }),
    headers: { 'content-type': type, ...headers },
    body: typeof example === 'string' ? example : (type === 'application/yaml' ? stringify : JSON.stringify)(example),
  })
}

t.test('the examples of the description are accepted as they stand, one after the other', async (t) => {
  const { status, json } = await send('POST /v1/principals')
  t.equal(status, 201, JSON.stringify(json))
  t.equal((await send('POST /v1/grants')).status, 201)
  t.equal((await send('POST /v1/credentials')).status, 201)
  const made = await send('POST /v1/tokens')
  t.equal(made.status, 201)
  const token = String(made.json.secret)

  const issued = await send('POST /v1/certificates', { token })
  t.equal(issued.status, 201, issued.text)
  const pem = await send('POST /v1/certificates', { token, type: 'application/x-pem-file', query: '?profile=server' })
  t.equal(pem.status, 201, pem.text)
  const batch = await send('POST /v1/certificates/batch', { token })
  t.match(batch.json, { items: [{ status: 201 }, { status: 422, problem: { code: 'san.forbidden' } }] })

  const { serial } = issued.json
  const revoked = await send('POST /v1/certificates/{serial}/revocation', { token, serial })
  t.equal(revoked.status, 200, revoked.text)
  t.equal((await send('POST /v1/revocations')).status, 200, 'a plan, and no order')
  t.equal((await send('POST /v1/issuer-requests')).status, 201)
})

t.test('who does not say what he takes gets what stands first', async (t) => {
  const offered = (path: string) => Object.keys(paths[path]?.['get']?.responses['200']?.content ?? {})
  const several = Object.keys(paths).filter((path) => offered(path).length > 1 && !path.includes('{serial}'))
  t.ok(several.includes('/v1/authorities/{name}/bundle') && several.length > 5)
  for (const path of several)
    t.ok(String((await send(`GET ${path}`)).headers['content-type']).startsWith(`${offered(path)[0]}`), path)
})

t.test(
  'documents are the same in JSON and, as the page writes them, in YAML, and are for the name in the path',
  async (t) => {
    for (const [call, headers] of [
      ['PUT /v1/profiles/{name}', { 'if-match': '*' }],
      ['PUT /v1/identity-providers/{name}', { 'if-none-match': '*' }],
    ] as const) {
      const first = await send(call, { headers })
      t.match(first.status, /^20[01]$/, first.text)
      const same = await send(call, {
        type: 'application/yaml',
        headers: { 'if-match': String(first.headers['etag']) },
      })
      t.match(same, { status: 200, json: { version: first.json.version, sha256: first.json.sha256 } })
    }
    for (const list of ['authorities', 'issuers', 'profiles', 'identity-providers'])
      t.equal((await send(`GET /v1/${list}/{name}`)).status, 200, `what the page asks of ${list} is there`)
  },
)
