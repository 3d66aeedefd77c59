/** What the log says of the credentials of a request: which of the several of a principal. */
import t from 'tap'

import type { ClientCertificate, Held, Proof } from '../../src/ca/access/access.ts'
import { Problem } from '../../src/errors.ts'
import { proofTold } from '../../src/http/auth.ts'
import { openStandIn, reached } from './stand-in.ts'

const told = (proof: Proof): object => proofTold({ principal: 'ci/deploy', grants: [], proof })

const exceeded = (): never => {
  throw new Problem('limit.concurrent', 'enough')
}

t.test('each kind by what finds it again, and by no secret', async (t) => {
  const fingerprint = Buffer.alloc(32, 1)
  const certificate = { fingerprint, serial: null } as unknown as ClientCertificate
  const cases: readonly (readonly [Proof, object])[] = [
    [{ kind: 'own' }, { kind: 'own' }],
    [
      { kind: 'token', token: 'id' },
      { kind: 'token', id: 'id' },
    ],
    [
      { kind: 'jwt', provider: 'people', version: 3, subject: 'alice' },
      { kind: 'jwt', id: 'people@3', subject: 'alice' },
    ],
    [
      { kind: 'certificate', credential: 'laptop', certificate },
      { kind: 'certificate', id: 'laptop', certificate: fingerprint.toString('hex') },
    ],
    [
      { kind: 'certificate', credential: 'laptop', certificate: { ...certificate, serial: '5d' } },
      { kind: 'certificate', id: 'laptop', certificate: '5d' },
    ],
    [
      { kind: 'holder', held: { serial: '5d' } as Held },
      { kind: 'holder', certificate: '5d' },
    ],
  ]
  for (const [proof, wanted] of cases) t.same(told(proof), wanted)
  const subjectTold = (subject: string): string =>
    (told({ kind: 'jwt', provider: 'p', version: 1, subject }) as { readonly subject: string }).subject
  t.equal(subjectTold('x'.repeat(8_000)).length, 255)
  t.equal(
    subjectTold('bob\u009b2J\u202e\u2028\nJosé'),
    'bob\ufffd2J\ufffd\ufffd\ufffdJosé',
    'a stranger’s word, for terminals',
  )
})

t.test('it stands in the line of the request', async (t) => {
  const { app, lines } = await openStandIn({})
  t.teardown(() => app.close())
  await app.inject({ url: '/v1/authorities', headers: { authorization: 'Bearer requester_x' } })
  await app.inject({ url: '/v1/authorities' })
  t.match(lines[0], { principal: 'the-requester', proof: { kind: 'token', id: 'token' } })
  t.equal((lines[1] as { proof?: object }).proof, undefined)
})

t.test('who is known and not let in, or is over a limit, is named there all the same', async (t) => {
  const limits = { enter: exceeded }
  const { app, lines } = await openStandIn({ principalLimits: reached(limits) })
  t.teardown(() => app.close())
  const ask = (method: 'GET' | 'POST', url: string) =>
    app.inject({ method, url, headers: { authorization: 'Bearer auditor_x' } })
  t.equal((await ask('POST', '/v1/issuers/default/moves')).statusCode, 403)
  t.equal((await ask('GET', '/v1/authorities')).statusCode, 429)
  const who = { principal: 'the-auditor', proof: { kind: 'token', id: 'token' } }
  t.match(lines, [
    { ...who, code: 'auth.forbidden' },
    { ...who, code: 'limit.concurrent' },
  ])
  await app.inject({ url: '/v1/authorities', headers: { authorization: 'Bearer wrong_x' } })
  t.match(lines[2], { code: 'auth.invalid', principal: undefined, proof: undefined })
})

t.test('so is whoever holds a certificate, and is over a limit when it is to be renewed', async (t) => {
  const limits = { enter: exceeded }
  const holder = async () => ({ principal: 'ci', grants: [], proof: { kind: 'holder', held: { serial: '5d' } } })
  const { app, lines } = await openStandIn({
    proxies: { networks: ['127.0.0.1'], header: 'x-forwarded-for' },
    identities: reached({ holder, takesCertificates: true }),
    principalLimits: reached(limits),
  })
  t.teardown(() => app.close())
  const headers = { 'client-cert': ':MAAA:', 'x-forwarded-for': '192.0.2.1' }
  const url = `/v1/certificates/${'5d'.repeat(16)}/renewal`
  t.equal((await app.inject({ method: 'POST', url, headers })).statusCode, 429)
  t.match(lines, [{ code: 'limit.concurrent', principal: 'ci', proof: { kind: 'holder', certificate: '5d' } }])
})
