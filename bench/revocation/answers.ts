/** OCSP answers a second: signed before and told again, and signed each time since a nonce is in them. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { parseCertificate } from '../../src/x509/certificate.ts'
import { encodeDer, encodeOid, encodeSequence, tags } from '../../src/x509/der.ts'
import { keyBits } from '../../src/x509/keys.ts'
import { parsePem } from '../../src/x509/pem.ts'
import { encodeCertId } from '../../test/helpers/cert-id.ts'
import { parseOcspResponse } from '../../test/helpers/ocsp-response.ts'
import { shoot } from '../load/load.ts'
import { call } from '../request.ts'
import { openChancery } from '../targets/chancery.ts'
import type { Plan } from './plan.ts'

export interface AnswersRow {
  readonly title: string
  readonly clients: number
  readonly perSecond: number
  /** Milliseconds. */
  readonly p50: number
  readonly p99: number
  readonly faults: number
}

export const measureAnswers = async (plan: Plan): Promise<readonly AnswersRow[]> => {
  const { place, sample, options } = plan
  const target = await openChancery({ place, sample, name: 'answers' })
  try {
    const { url, ca, headers, body, publicUrl = '' } = target
    const ids: Buffer[] = []
    for (let i = 0; i < certificates; i += 1) {
      const { certificate, chain } = JSON.parse((await call({ url, ca, method: 'POST', headers, body })).text)
      const [leaf, issuer] = [certificate, chain[0]].map((pem) => parseCertificate(parsePem(pem, 'CERTIFICATE')).facts)
      if (!leaf || !issuer) throw new Error('there is no certificate')
      ids.push(encodeCertId('sha1', issuer.subjectDer, keyBits(issuer.spki), leaf.serial))
    }
    await assertGood(`${publicUrl}/ocsp/default`, requestFor(ids[0] as Buffer))
    const rows: AnswersRow[] = []
    for (const clients of options.clients)
      for (const kind of kinds)
        rows.push(await measure(plan, { ...kind, clients, url: `${publicUrl}/ocsp/default`, ids }))
    return rows
  } finally {
    await target.close()
  }
}

interface Kind {
  readonly title: string
  readonly method: string
  readonly nonce?: Buffer
}

const kinds: readonly Kind[] = [
  { title: 'by POST, signed before', method: 'POST' },
  { title: 'by GET, signed before', method: 'GET' },
  { title: 'by POST with a nonce, signed each time', method: 'POST', nonce: Buffer.alloc(32, 7) },
]

const measure = async (
  { place, generator, options, tell }: Plan,
  { title, method, nonce, clients, url, ids }: Kind & { clients: number; url: string; ids: readonly Buffer[] },
): Promise<AnswersRow> => {
  const requests = ids.map((id) => requestFor(id, nonce))
  // Octets that a line of text could not hold go by GET alone; a POST is one and the same.
  const [request = Buffer.alloc(0)] = requests
  const path = method === 'GET' ? `${url}/${encodeURIComponent(request.toString('base64'))}` : url
  await writeFile(join(place.folder, 'ocsp-request'), request)
  const found = await shoot(generator, place.folder, {
    url: path,
    method,
    headers: { 'content-type': 'application/ocsp-request' },
    body: request,
    clients,
    seconds: options.seconds,
  })
  const { requests: answered, seconds, statusErrors, socketErrors, timeouts, p50, p99 } = found
  const row = {
    title,
    clients,
    perSecond: answered / seconds,
    p50,
    p99,
    faults: statusErrors + socketErrors + timeouts,
  }
  tell(`OCSP ${title}, ${clients} clients: ${Math.round(row.perSecond)}/s`)
  return row
}

const assertGood = async (url: string, body: Buffer): Promise<void> => {
  const answer = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/ocsp-request' },
    body: new Uint8Array(body),
  })
  const read = parseOcspResponse(Buffer.from(await answer.arrayBuffer()))
  if (read.status !== 'successful' || read.basic.responses[0]?.status.kind !== 'good')
    throw new Error(`OCSP answers ${read.status}`)
}

export const requestFor = (id: Buffer, nonce?: Buffer): Buffer => {
  const value = nonce && encodeDer(tags.octetString, encodeDer(tags.octetString, nonce))
  const extension = value && encodeSequence(encodeOid('1.3.6.1.5.5.7.48.1.2'), value)
  return encodeSequence(
    encodeSequence(
      encodeSequence(encodeSequence(id)),
      ...(extension ? [encodeDer(0xa2, encodeSequence(extension))] : []),
    ),
  )
}

const certificates = 1
