/** What a search says of a certificate is put together by the database: the same as reading it says. */
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { allowAll } from '../db/stores.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { commonName, dns, ip, mail, newP256, pem, request, san, uri } from '../x509/build.ts'
import { employ } from './people.ts'

const service = await openTestService(t)
let asker = ''
t.before(async () => {
  await service.request('PUT', '/v1/profiles/all', {
    headers: { 'if-none-match': '*' },
    body: { ...allowAll, validity: { ...allowAll.validity, backdate: '5m' } },
  })
  asker = await employ(service, 'asker', 'requester', { profiles: ['all'], onBehalfOf: {} })
})

const issue = async (
  names: readonly Buffer[],
  { subject, ...more }: { readonly subject?: Buffer; readonly [member: string]: unknown } = {},
): Promise<string> => {
  const csr = pem(request({ signer: newP256(), extensions: [san(...names)], ...(subject && { subject }) }))
  const made = await service.request('POST', '/v1/certificates', {
    token: asker,
    body: { csr, profile: 'all', ...more },
  })
  if (made.status !== 201) throw new Error(made.text)
  return made.json.serial
}

const change = async (method: string, serial: string, body?: object): Promise<void> => {
  const { status, text } = await service.request(method, `/v1/certificates/${serial}/revocation`, {
    ...(body && { body }),
  })
  if (status !== 200) throw new Error(text)
}

/** What reading it says of it, but for the certificate itself. */
const shownOf = async (serial: string): Promise<object> => {
  const { certificate: _, chain: __, ...shown } = (await service.request('GET', `/v1/certificates/${serial}`)).json
  return shown
}

slowTest('a search shows each certificate as reading it does, in every order and form', async (t) => {
  const origin = {
    user: 'a "quoted" user\\',
    groups: ['ä'],
    extra: { zone: ['1'], Zone: ['é', '𝄞'] },
    namespace: 'shop',
  }
  await issue([
    dns('z.example.com'),
    ip('0a000001'),
    dns('a.example.com'),
    mail('Some@Example.com'),
    ip('20010db8000000000000000000000001'),
  ])
  await issue([uri('spiffe://example.com/a/b'), dns('one.example.com')], {
    subject: commonName('O "quoted", Ünicode \\ 𝄞'),
  })
  await issue([dns('behalf.example.com')], { onBehalfOf: origin })
  const expired = await issue([dns('expired.example.com')], { validity: '305s' })
  const expiredAndRevoked = await issue([dns('both.example.com')], { validity: '305s' })
  await change('POST', expiredAndRevoked, { reason: 'superseded' })
  await change('POST', await issue([dns('no-reason.example.com')]), { reason: 'unspecified' })
  await change('POST', await issue([dns('dated.example.com')]), {
    reason: 'keyCompromise',
    invalidityDate: new Date(1_000 * Math.floor(Date.now() / 1_000)).toISOString(),
  })
  const released = await issue([dns('released.example.com')], { onBehalfOf: origin })
  await change('POST', released, { reason: 'certificateHold' })
  await change('DELETE', released)
  await change('POST', await issue([dns('held.example.com')], { onBehalfOf: origin }), { reason: 'certificateHold' })
  for (let status = ''; status !== 'expired'; await sleep(200))
    ({ status } = (await shownOf(expired)) as { status: string })

  for (const [query, least] of [
    ['', 9],
    ['profile=all', 9],
    ['name=*.example.com', 9],
    ['expiresAfter=2020-01-01T00:00:00Z', 9],
    ['status=revoked', 4],
  ] as const) {
    const { text, json } = await service.request('GET', `/v1/certificates?limit=1000&${query}`)
    t.ok(json.items.length >= least, `${json.items.length} by ${query}`)
    t.same(json.items, await Promise.all(json.items.map(({ serial }: { serial: string }) => shownOf(serial))), query)
    const lines = json.items.map((item: object) => JSON.stringify(item))
    t.ok(text.startsWith(`{"items":[${lines.join(',')}],`), 'with the escapes that JavaScript would write')
    const exported = await service.request('GET', `/v1/certificates?${query}`, {
      headers: { accept: 'application/x-ndjson' },
    })
    t.same(exported.text.split('\n').slice(0, -2), lines, query)
  }
})

t.test('a certificate is found by its subject as it is shown, and in any other spelling of RFC 4514', async (t) => {
  const serial = await issue([dns('spelt.example.com')], { subject: commonName('Spelt, ö') })
  const find = async (subject: string): Promise<readonly string[]> => {
    const { json } = await service.request('GET', `/v1/certificates?subject=${encodeURIComponent(subject)}`)
    return json.items.map((item: { serial: string }) => item.serial)
  }
  const { subject } = (await shownOf(serial)) as { subject: string }
  for (const written of [subject, 'cn=Spelt\\, ö', '2.5.4.3=Spelt\\2C \\C3\\B6'])
    t.same(await find(written), [serial], written)
  t.same(await find('CN=spelt\\, ö'), [], 'its letters are what they are')
})
