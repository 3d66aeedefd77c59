/**
 * Every route × every role × every kind of credential, on the real service over real TLS. What each route lets in is taken
 * from its description, which auth.test.ts holds to a matrix that was written by hand.
 */
import t from 'tap'

import { type Role, roles } from '../../src/ca/access/access.ts'
import { openClientCa, spiffe } from '../helpers/clients.ts'
import { audience, newRsaKey, openTestIssuer, signToken } from '../helpers/issuer.ts'
import { slowTest } from '../helpers/slow.ts'
import { openClients } from './clients.ts'
import { openHoldersOf } from './holders.ts'
import { employ } from './people.ts'

type Who = Role | 'nobody' | 'wrong'
type Ask = (method: string, path: string) => Promise<{ readonly status: number; readonly code: string | undefined }>

const { ca, service, open } = await openClients(t)
const issuer = await openTestIssuer(t)
const everybody: readonly Who[] = [...roles, 'nobody', 'wrong']
const more = (role: Who): object => (role === 'requester' ? { profiles: ['server'] } : {})

/** Principals of one kind, each with the grant that its name says; one has none. */
const engage = async (prefix: string): Promise<void> => {
  for (const role of roles) await employ(service, `${prefix}-${role}`, role, more(role))
  await service.request('POST', '/v1/principals', { body: { name: `${prefix}-nobody` } })
}

const byToken = async (who: Who): Promise<string> => {
  if (who === 'wrong') return `chy_${'A'.repeat(49)}`
  const principal = `token-${who}`
  return (await service.request('POST', '/v1/tokens', { body: { principal, label: 'matrix' } })).json.secret
}

const byJwt = (who: Who): string =>
  who === 'wrong'
    ? signToken(issuer.claims({ sub: 'admin' }), { ...newRsaKey(), kid: issuer.key.kid })
    : issuer.token({ sub: who })

const byCertificate = async (who: Who) => {
  if (who === 'wrong') return openClientCa('Strangers').certify(spiffe('spiffe://example.com/admin'))
  const id = `spiffe://example.com/${who}`
  const body = { principal: `certificate-${who}`, label: 'matrix', spiffeId: id }
  await service.request('POST', '/v1/credentials', { body })
  return ca.certify(spiffe(id))
}

/** How somebody asks, by each kind of credential. */
const kinds: Readonly<Record<string, (who: Who) => Promise<Ask>>> = {
  token: async (who) => {
    const token = await byToken(who)
    return async (method, path) => codeOf(await service.request(method, path, { token }))
  },
  jwt: async (who) => {
    const token = byJwt(who)
    return async (method, path) => codeOf(await service.request(method, path, { token }))
  },
  certificate: async (who) => {
    const connection = open(t, { client: await byCertificate(who) })
    return async (method, path) => codeOf(await connection.request(method, path))
  },
}

const codeOf = ({
  status,
  json,
}: {
  readonly status: number
  readonly json: { readonly code?: string } | undefined
}) => ({
  status,
  code: json?.code,
})

interface Route {
  readonly method: string
  readonly path: string
  /** null: anybody. */
  readonly rule: readonly Role[] | null
  readonly isOpen: boolean
  /** Whoever holds the certificate of the path is let in. */
  readonly isHolders: boolean
}

const routesOf = (): readonly Route[] => {
  const { paths } = service.service.app.swagger() as unknown as {
    readonly paths: Record<string, Record<string, { 'x-roles': Role[]; 'x-holder'?: true; security: object[] }>>
  }
  return Object.entries(paths).flatMap(([pattern, operations]) =>
    Object.entries(operations).map(([method, { 'x-roles': rule, 'x-holder': isHolders = false, security }]) => ({
      method: method.toUpperCase(),
      path: pattern.replaceAll(/\{(\w+|\*)\}/g, (_, name: string) => values[name] ?? ''),
      rule: rule.length > 0 || isHolders ? rule : null,
      isOpen: security.length === 0,
      isHolders,
    })),
  )
}

/** Of things that are not there, so that nobody who is let in changes anything. */
const values: Readonly<Record<string, string>> = {
  serial: '4a'.repeat(16),
  digest: 'ab'.repeat(32),
  version: '1',
  code: 'csr.pem',
  id: '0193f2b4-6a51-7c1e-9d0b-3f1c2a4b5d6e',
  name: 'not-there',
  path: '0/000',
  '*': '0/000',
}

t.before(async () => {
  for (const kind of Object.keys(kinds)) await engage(kind)
  const headers = { 'if-none-match': '*' }
  const document = {
    name: 'matrix',
    issuer: issuer.url,
    keys: { discovery: true, ca: issuer.ca },
    algorithms: ['RS256'],
    audience,
    lifetime: '15m',
    mappings: [...roles, 'nobody'].map((who) => ({ id: who, claims: { sub: who }, principal: `jwt-${who}` })),
  }
  const made = await service.request('PUT', '/v1/identity-providers/matrix', { headers, body: document })
  if (made.status !== 201) throw new Error(made.text)
})

slowTest('every cell of the matrix', async (t) => {
  const routes = routesOf()
  t.ok(routes.length > 50, `${routes.length} routes`)
  let cells = 0
  for (const [kind, open] of Object.entries(kinds)) {
    await Promise.all(
      everybody.map(async (who) => {
        const ask = await open(who)
        for (const { method, path, rule, isOpen, isHolders } of routes) {
          const { status, code } = await ask(method, path)
          const what = `${method} ${path} by ${who} with a ${kind}: ${status} ${code}`
          cells += 1
          // Where nothing counts but the certificate itself, another one is told just that.
          if (kind === 'certificate' && isHolders && rule?.length === 0) t.equal(code, 'renewal.certificate', what)
          else if (who === 'wrong') t.equal(status === 401 && code === 'auth.invalid', !isOpen, what)
          else if (rule === null || rule.includes(who as Role)) t.notOk([401, 403].includes(status), what)
          else t.equal(code, rule.length === 0 ? 'renewal.certificate' : 'auth.forbidden', what)
        }
      }),
    )
  }
  t.equal(cells, routes.length * everybody.length * Object.keys(kinds).length)
  t.comment(`${cells} cells: ${routes.length} routes, ${everybody.length} callers, ${Object.keys(kinds).length} kinds`)
})

t.test('whoever holds a certificate is let in to what is of that certificate, and nowhere else', async (t) => {
  // Its principal may do everything: that is not the certificate's.
  const token = await employ(service, 'everything', 'admin')
  for (const role of roles)
    await service.request('POST', '/v1/grants', { body: { principal: 'everything', role, ...more(role) } })
  const held = await openHoldersOf(service).issue(['held.example.com'], { token })
  const own = held.serial
  for (const serial of [own, '4a'.repeat(16)]) {
    const connection = open(t, { client: held })
    for (const { method, path, isOpen, isHolders } of routesOf()) {
      const here = path.replace('4a'.repeat(16), serial)
      const { status, code } = codeOf(await connection.request(method, here))
      const what = `${method} ${here}: ${status} ${code}`
      const isLetIn = isOpen || (isHolders && serial === own)
      t.equal([401, 403].includes(status), !isLetIn, what)
      if (serial === own && isHolders) t.ok(['request.malformed', 'request.media_type', undefined].includes(code), what)
    }
  }
})
