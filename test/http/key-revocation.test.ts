/** Revoking by the key of the certificate, for whoever holds it and nothing else. */
import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto'

import { CompactSign } from 'jose'
import t from 'tap'

import { type KeyProof, keyProofType, signKeyProof } from '../../src/keys/key-proof.ts'
import { type Answer, openTestService, type TestService } from '../helpers/service.ts'
import { pem, requestBy } from '../x509/build.ts'
import { employ } from './people.ts'

let service: TestService
let token: string

t.before(async () => {
  service = await openTestService(t)
  token = await employ(service, 'ci', 'requester', { profiles: ['server'] })
})

const newKey = () => generateKeyPairSync('ec', { namedCurve: 'P-256' })
const pemOf = (key: KeyObject): string => key.export({ type: 'pkcs8', format: 'pem' }) as string

const issue = async (): Promise<{ readonly serial: string; readonly key: string }> => {
  const { privateKey } = newKey()
  const csr = pem(requestBy(privateKey, 'web.example.com'))
  const { json } = await service.request('POST', '/v1/certificates', { token, body: { csr, profile: 'server' } })
  return { serial: json.serial, key: pemOf(privateKey) }
}
const now = (): number => Math.floor(Date.now() / 1000)
const proofOf = (serial: string, more: Partial<KeyProof> = {}): KeyProof => ({
  issuer: 'default',
  serial,
  reason: 'keyCompromise',
  iat: now(),
  ...more,
})
const send = (serial: string, body: string, type = 'application/jose'): Promise<Answer> =>
  service.request('POST', `/v1/certificates/${serial}/revocation/by-key`, {
    token: null,
    headers: { 'content-type': type },
    body,
  })
/** Each test comes from an address of its own, as far as the bound by address goes. */
const refused = { status: 403, json: { code: 'revocation.proof', retryable: false } }

t.test('the holder of the key revokes, without any token', async (t) => {
  const { serial, key } = await issue()
  const invalidityDate = '2026-11-01T00:00:00Z'
  const proof = await signKeyProof(proofOf(serial, { invalidityDate }), key)
  t.match(await send(serial, proof), {
    status: 200,
    json: {
      serial,
      status: 'revoked',
      revocation: { reason: 'keyCompromise', by: null, invalidityDate: /^2026-11-01/ },
    },
  })
  t.match(await send(serial, proof), { status: 200 }, 'idempotent')
  const { items } = (await service.request('GET', `/v1/events?serial=${serial}`)).json
  t.match(JSON.parse(items[1].entry), { type: 'certificate.revoked', by: null, plan: null })
  const again = await send(serial, await signKeyProof(proofOf(serial, { reason: 'superseded' }), key))
  t.match(again, { status: 409, json: { code: 'revocation.state' } })
})

t.test('what is no proof', async (t) => {
  const { serial, key } = await issue()
  const other = await issue()
  const good = await signKeyProof(proofOf(serial), key)
  const signed = (payload: unknown, header: object = { alg: 'ES256', typ: keyProofType }): Promise<string> =>
    new CompactSign(Buffer.from(typeof payload === 'string' ? payload : JSON.stringify(payload)))
      .setProtectedHeader(header as { alg: string })
      .sign(createPrivateKey(key))
  const [, body = ''] = good.split('.')
  const unsigned = `${Buffer.from(JSON.stringify({ alg: 'none', typ: keyProofType })).toString('base64url')}.${body}.`
  for (const [what, proof] of Object.entries({
    "another key's": await signKeyProof(proofOf(serial), other.key),
    'of another certificate': await signed(proofOf(other.serial)),
    'of another issuer': await signed(proofOf(serial, { issuer: 'kubernetes' })),
    old: await signed(proofOf(serial, { iat: now() - 301 })),
    'of tomorrow': await signed(proofOf(serial, { iat: now() + 120 })),
    'without a time': await signed({ issuer: 'default', serial, reason: 'keyCompromise' }),
    'a time as text': await signed({ ...proofOf(serial), iat: String(now()) }),
    'no reason that is known': await signed(proofOf(serial, { reason: 'removeFromCRL' })),
    'a date that is none': await signed(proofOf(serial, { invalidityDate: 'soon' })),
    'a date of another form': await signed({ ...proofOf(serial), invalidityDate: 0 }),
    'a hold': await signed(proofOf(serial, { reason: 'certificateHold' })),
    'more than it should say': await signed({ ...proofOf(serial), extra: 1 }),
    'no object': await signed('[]'),
    'no JSON': await signed('{'),
    'of another type': await signed(proofOf(serial), { alg: 'ES256', typ: 'JWT' }),
    'of no type': await signed(proofOf(serial), { alg: 'ES256' }),
    unsigned,
  })) {
    const answer = await send(serial, proof)
    t.match(answer, refused, what)
    t.equal(answer.json.issuer, what === 'of another issuer' ? 'default' : undefined, 'told to who signs for it only')
  }
  t.match((await service.request('GET', `/v1/certificates/${serial}`)).json, { status: 'valid' })
})

t.test('beyond twenty a minute, an address has to wait', async (t) => {
  const { serial, key } = await issue()
  const answer = await send(serial, await signKeyProof(proofOf(serial), key))
  t.match(answer, { status: 429, json: { code: 'rate.limited', retryable: true } })
  t.ok(Number(answer.headers['retry-after']) > 0)
  t.equal(answer.headers['x-ratelimit-limit'], undefined)
  t.match(await service.request('GET', '/livez'), { status: 200 }, 'for this call alone')
})
