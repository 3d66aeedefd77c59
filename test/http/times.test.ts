import { generateKeyPairSync } from 'node:crypto'

import t from 'tap'

import { signKeyProof } from '../../src/keys/key-proof.ts'
import { issueAt } from '../helpers/certificates.ts'
import { openTestService } from '../helpers/service.ts'
import { openSql } from '../helpers/sql.ts'
import { pem, requestBy } from '../x509/build.ts'

const service = await openTestService(t)
const owner = await openSql(t, service.database.ownerUrl)

const ask = async (path: string) => (await service.request('GET', path)).json
const issue = async (name: string): Promise<string> => (await issueAt(service, { name })).serial

/** The same moment, and so many more digits. */
const finer = (time: string, digits: string): string => time.replace('Z', `${digits}Z`)
const later = (time: string): string => new Date(Date.parse(time) + 1).toISOString()

t.test('a bound that is finer than what is kept is exact all the same', async (t) => {
  await issue('times.example.com')
  // PostgreSQL keeps microseconds of these; what is shown of them counts.
  const { rows } = await owner.query(
    `insert into refusals (id, at, principal, profile, code, digest, detail, violations)
    values (gen_random_uuid(), date_trunc('second', clock_timestamp()) - interval '9.534100 s', 'crowd', 'server', 'csr.pem',
      sha256('x'), 'x', '[]') returning to_char(at at time zone 'UTC', 'US') as micros`,
  )
  t.equal(rows[0]?.micros, '465900')
  const [refusal] = (await ask('/v1/refusals?principal=crowd')).items
  t.match(refusal.at, /[.]465Z$/)
  const [certificate] = (await ask('/v1/certificates?name=times.example.com')).items
  const cases = [
    ['/v1/refusals?principal=crowd', '', refusal.at],
    ['/v1/certificates?name=times.example.com', 'issued', certificate.issuedAt],
    ['/v1/certificates?name=times.example.com', 'expires', certificate.notAfter],
    [`/v1/events?serial=${certificate.serial}`, '', certificate.issuedAt],
  ] as const
  for (const [path, what, time] of cases) {
    const [after, before] = what === '' ? ['after', 'before'] : [`${what}After`, `${what}Before`]
    const found = async (filter: string): Promise<number> => (await ask(`${path}&${filter}`)).items.length
    t.equal(await found(`${before}=${time}`), 0, `${path} before ${time}`)
    t.equal(await found(`${after}=${time}`), 1, `${path} after ${time}`)
    for (const digits of ['000', '000000'])
      t.equal(await found(`${before}=${finer(time, digits)}`), 0, `${path} before ${finer(time, digits)}`)
    for (const digits of ['1', '01', '999', '000001']) {
      t.equal(await found(`${before}=${finer(time, digits)}`), 1, `${path} before ${finer(time, digits)}`)
      t.equal(await found(`${after}=${finer(time, digits)}`), 0, `${path} after ${finer(time, digits)}`)
    }
    t.equal(await found(`${before}=${later(time)}`), 1)
    t.equal(await found(`${after}=${later(time)}`), 0)
  }
})

t.test('what is told of a search has the times that were asked', async (t) => {
  const [after, before] = ['2020-01-01T02:00:00.123456789+02:00', '2020-01-01T00:00:08.4651Z']
  const query = `after=${encodeURIComponent(after)}&before=${before}`
  const answer = await service.request('GET', `/v1/events?${query}`, { headers: { accept: 'application/x-ndjson' } })
  t.same(JSON.parse(answer.text).end.filter, { after, before })
  t.same((await ask('/v1/accesses?act=began&limit=1')).items[0].filter, { after, before })
})

t.test('an invalidity date is in whole seconds, as lists have it: what they cannot say is refused', async (t) => {
  const serial = await issue('invalid.example.com')
  const revoke = (invalidityDate: string) =>
    service.request('POST', `/v1/certificates/${serial}/revocation`, {
      body: { reason: 'keyCompromise', invalidityDate },
    })
  const plan = (invalidityDate: string) =>
    service.request('POST', '/v1/revocations', {
      body: { search: { name: 'invalid.example.com' }, reason: 'keyCompromise', invalidityDate },
    })
  await service.request('POST', '/v1/grants', { body: { principal: 'admin', role: 'operator' } })
  for (const call of [plan, revoke]) {
    for (const fraction of ['.5', '.0001', '.000000001']) {
      const { status, json } = await call(`2026-11-01T00:00:10${fraction}Z`)
      t.equal(status, 400, fraction)
      t.match(json.violations, [{ check: 'request.time', field: '/invalidityDate', reason: /whole seconds/ }])
    }
    t.equal((await call('2026-11-01T00:00:10.000Z')).status, 200, 'zeros are what our own answers say')
  }
  t.match(await ask(`/v1/certificates/${serial}`), { revocation: { invalidityDate: '2026-11-01T00:00:10.000Z' } })
})

t.test('nor does the holder of a key say it more finely', async (t) => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const csr = pem(requestBy(privateKey, 'held.example.com'))
  const { serial } = (await service.request('POST', '/v1/certificates', { body: { csr, profile: 'server' } })).json
  const prove = async (invalidityDate: string) => {
    const proof = { issuer: 'default', serial, reason: 'keyCompromise', iat: Math.floor(Date.now() / 1000) } as const
    return service.request('POST', `/v1/certificates/${serial}/revocation/by-key`, {
      token: null,
      headers: { 'content-type': 'application/jose' },
      body: await signKeyProof(
        { ...proof, invalidityDate },
        privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
      ),
    })
  }
  t.match(await prove('2026-11-01T00:00:10.5Z'), { status: 403, json: { code: 'revocation.proof' } })
  t.match(await prove('2026-11-01T00:00:10.000Z'), { status: 200 })
})
