/** The roll of a real service, with something of each kind that its API can do: nothing is found, and every flipped bit is. */
import t from 'tap'

import { openRollCertificates } from '../../src/auditor/certificates.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor, employ } from '../http/people.ts'
import { type Stored, storedOf, verifyAll } from './world.ts'

t.setTimeout(300_000)
const certificates = openRollCertificates(1)
t.teardown(() => certificates.close())
const service = await openTestService(t)
const auditor = await employ(service, 'audit', 'auditor')
const operator = await employ(service, 'ops', 'operator')
const requester = await employ(service, 'ci', 'requester', { profiles: ['server'] })

const issue = async (): Promise<string> => {
  const body = { csr: csrFor('web.example.com'), profile: 'server' }
  return (await service.request('POST', '/v1/certificates', { token: requester, body })).json.serial
}

/** All entries, page by page, with the leaves that are stored. */
const readRoll = async (): Promise<Stored[]> => {
  const entries: Stored[] = []
  let cursor = ''
  do {
    const { json } = await service.request('GET', `/v1/events?limit=100${cursor}`, { token: auditor })
    for (const { index, leafHash, entry } of json.items)
      entries.push({ ...storedOf(index, entry), leaf: Buffer.from(leafHash, 'hex') })
    cursor = json.next ? `&cursor=${json.next}` : ''
  } while (cursor !== '')
  return entries
}

for (let i = 0; i < 30; i += 1) await issue()
const [held, lost] = [await issue(), await issue()]
for (const [serial, reason] of [
  [held, 'certificateHold'],
  [lost, 'superseded'],
  [lost, 'keyCompromise'],
])
  await service.request('POST', `/v1/certificates/${serial}/revocation`, { token: operator, body: { reason } })
await service.request('DELETE', `/v1/certificates/${held}/revocation`, { token: operator })
const entries = await readRoll()

t.test('a roll of everyday life has no findings', async (t) => {
  const types = new Set(entries.map(({ octets }) => JSON.parse(Buffer.from(octets).toString()).type))
  for (const type of [
    'certificate.issued',
    'certificate.revoked',
    'certificate.released',
    'issuer.created',
    'crls.intended',
  ])
    t.ok(types.has(type), type)
  t.ok(entries.length > 60)
  t.same((await verifyAll(entries, certificates, { batch: 50 })).findings, [])
})

slowTest('one flipped bit anywhere is found, and its entry is named', async (t) => {
  const missed: string[] = []
  // Every entry, at places that move on by a step that meets every field.
  for (const [i, entry] of entries.entries()) {
    const octets = Uint8Array.from(entry.octets)
    const at = (i * 977 + 13) % octets.length
    octets[at] = (octets[at] ?? 0) ^ (1 << (i % 8))
    const { findings } = await verifyAll(entries.with(i, { ...entry, octets }), certificates, { batch: 1000 })
    if (!findings.some(({ index }) => index === entry.index)) missed.push(`${i} at ${at}`)
  }
  t.same(missed, [])
})
