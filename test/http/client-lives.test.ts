/** How long a client certificate lets somebody in: not a moment longer than it should, also on a live connection. */
import { createHash, generateKeyPairSync } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { parsePem } from '../../src/x509/pem.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { pem, requestBy } from '../x509/build.ts'
import { openClients } from './clients.ts'

const { ca, file, service, tie, open, ask } = await openClients(t)

slowTest('a credential, a grant or a principal that is taken away ends access on a live connection', async (t) => {
  const other = await openTestService(t, { CHANCERY_CLIENT_CA: file }, service)
  const ends: readonly (readonly [string, (principal: string, credential: string) => Promise<unknown>, string])[] = [
    ['credential', (_, id) => service.request('DELETE', `/v1/credentials/${id}`), 'auth.unmapped'],
    ['principal', (principal) => service.request('DELETE', `/v1/principals/${principal}`), 'auth.unmapped'],
    [
      'grant',
      async (principal) => {
        const { json } = await service.request('GET', `/v1/grants?principal=${principal}`)
        await service.request('DELETE', `/v1/grants/${json.items[0].id}`)
      },
      'auth.forbidden',
    ],
  ]
  const lives = await Promise.all(
    ends.map(async ([what, end, code]) => {
      const client = ca.certify()
      const id = await tie(`leaving-${what}`, { fingerprint: client.fingerprint })
      const here = open(t, { client })
      const there = open(t, { client }, other)
      for (const connection of [here, there]) t.equal((await connection.request('GET', '/v1/authorities')).status, 200)
      await end(`leaving-${what}`, id)
      t.equal((await here.request('GET', '/v1/authorities')).json.code, code, `${what}: here at once`)
      return { what, here, there, code }
    }),
  )
  await sleep(2_050)
  for (const { what, here, there, code } of lives) {
    t.equal((await there.request('GET', '/v1/authorities')).json.code, code, `${what}: on another replica`)
    for (const connection of [here, there]) t.equal(connection.ports.length, 1, 'on the connection that it had')
  }
})

slowTest('a certificate that expires while its connection lives is not accepted any more', async (t) => {
  const client = ca.certify({ from: -60, to: 3 })
  await tie('brief', { fingerprint: client.fingerprint })
  const connection = open(t, { client })
  t.equal((await connection.request('GET', '/v1/authorities')).status, 200)
  await sleep(4_100)
  t.equal((await connection.request('GET', '/v1/authorities')).json.code, 'auth.expired')
  t.equal(connection.ports.length, 1)
})

slowTest('what our own issuers have signed holds by our own records', async (t) => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const key = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
  const csr = pem(requestBy(privateKey, 'own.example.com'))
  const issue = async (profile: string) => {
    const { json } = await service.request('POST', '/v1/certificates', { body: { csr, profile } })
    return { cert: [json.certificate, ...json.chain].join(''), key, serial: json.serial as string }
  }
  const client = await issue('client')
  t.equal(await ask(t, client), 'auth.unmapped')
  const der = parsePem(client.cert.slice(0, client.cert.indexOf('-----END CERTIFICATE-----\n') + 26), 'CERTIFICATE')
  await tie('of-ours', { fingerprint: createHash('sha256').update(der).digest('hex') })
  const connection = open(t, { client })
  t.equal((await connection.request('GET', '/v1/authorities')).status, 200)
  t.equal(await ask(t, await issue('server')), 'auth.usage', 'one for servers is none for clients')

  const reason = { reason: 'certificateHold' }
  await service.request('POST', `/v1/certificates/${client.serial}/revocation`, { body: reason })
  await sleep(2_050)
  t.equal((await connection.request('GET', '/v1/authorities')).json.code, 'auth.revoked', 'also one that is on hold')
  await service.request('DELETE', `/v1/certificates/${client.serial}/revocation`)
  await sleep(2_050)
  t.equal((await connection.request('GET', '/v1/authorities')).status, 200)
  t.equal(connection.ports.length, 1)
})
