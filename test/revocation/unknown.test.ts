/**
 * Serials that nobody was issued, by the thousand: OCSP never says `good` of one. `CHANCERY_TEST_SERIALS` says how many
 * (8,000).
 */
import { randomBytes } from 'node:crypto'
import { Agent, request } from 'node:http'

import t from 'tap'

import { parseCertificate } from '../../src/x509/certificate.ts'
import { keyBits } from '../../src/x509/keys.ts'
import { ocspErrors } from '../../src/x509/ocsp.ts'
import { parsePem } from '../../src/x509/pem.ts'
import { encodeCertId } from '../helpers/cert-id.ts'
import { parseOcspResponse } from '../helpers/ocsp-response.ts'
import { openTestService } from '../helpers/service.ts'
import { csrFor } from '../http/people.ts'
import { seq } from '../x509/build.ts'

const serials = Number(process.env['CHANCERY_TEST_SERIALS'] ?? 8_000)
t.setTimeout(900_000)

t.test(`${serials} random serials, and a few that were issued among them`, async (t) => {
  const service = await openTestService(t)
  const issuer = (await service.request('GET', '/v1/issuers/default')).json.certificate
  const { subjectDer, spki } = parseCertificate(parsePem(issuer, 'CERTIFICATE')).facts
  const agent = new Agent({ keepAlive: true, maxSockets: 32 })
  t.teardown(async () => agent.destroy())
  const ask = (serial: Buffer): Promise<Buffer> => {
    const body = seq(seq(seq(seq(encodeCertId('sha1', subjectDer, keyBits(spki), serial)))))
    return new Promise((resolve, reject) => {
      const headers = { 'content-type': 'application/ocsp-request', 'content-length': body.length }
      const sent = request(`${service.publicUrl}/ocsp/default`, { agent, method: 'POST', headers }, (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('error', reject)
        response.on('end', () => resolve(Buffer.concat(chunks)))
      })
      sent.on('error', reject)
      sent.end(body)
    })
  }
  const issued = new Set<string>()
  for (let i = 0; i < 20; i += 1) {
    const body = { csr: csrFor('web.example.com'), profile: 'server' }
    issued.add((await service.request('POST', '/v1/certificates', { body })).json.serial)
  }
  const counts = { good: 0, unauthorized: 0, other: 0 }
  const wrong: string[] = []
  let asked = 0
  const client = async (): Promise<void> => {
    while (asked < serials) {
      asked += 1
      // Of the form of ours: positive, never shortened.
      const serial = randomBytes(16)
      serial[0] = ((serial[0] ?? 0) & 0x3f) | 0x40
      const answer = await ask(serial)
      if (answer.equals(ocspErrors.unauthorized)) counts.unauthorized += 1
      else if (!answer.equals(ocspErrors.tryLater)) wrong.push(serial.toString('hex'))
      else counts.other += 1
    }
  }
  await Promise.all(Array.from({ length: 32 }, client))
  for (const serial of issued) {
    const read = parseOcspResponse(await ask(Buffer.from(serial, 'hex')))
    if (read.status === 'successful' && read.basic.responses[0]?.status.kind === 'good') counts.good += 1
  }
  t.same(wrong, [])
  t.equal(counts.good, issued.size)
  t.ok(counts.unauthorized > serials * 0.99, `${counts.other} were put off`)
  t.comment(JSON.stringify(counts))
})
