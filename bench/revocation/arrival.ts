/** How long a revocation takes to arrive: in the answers of another replica, and on the list. */
import { parseCertificate } from '../../src/x509/certificate.ts'
import { parseCrl } from '../../src/x509/crl.ts'
import { keyBits } from '../../src/x509/keys.ts'
import { parsePem } from '../../src/x509/pem.ts'
import { encodeCertId } from '../../test/helpers/cert-id.ts'
import { parseOcspResponse } from '../../test/helpers/ocsp-response.ts'
import { pause } from '../process.ts'
import { call } from '../request.ts'
import { openChancery } from '../targets/chancery.ts'
import type { Target } from '../targets/target.ts'
import { requestFor } from './answers.ts'
import type { Plan } from './plan.ts'

/** Milliseconds. */
export interface Arrival {
  readonly revocations: number
  /** From the question to the answer of whoever revokes. */
  readonly revoking: Quantiles
  /** From that answer on. */
  readonly sameReplica: Quantiles
  readonly otherReplica: Quantiles
  readonly list: Quantiles
}

export interface Quantiles {
  readonly p50: number
  readonly p99: number
}

export const measureArrival = async ({ place, sample, tell }: Plan): Promise<Arrival> => {
  const one = await openChancery({ place, sample, name: 'arrival' })
  const other = await openChancery({ place, sample, name: 'arrival-2', beside: one })
  const times = {
    revoking: [] as number[],
    sameReplica: [] as number[],
    otherReplica: [] as number[],
    list: [] as number[],
  }
  try {
    const revoked: Promise<void>[] = []
    for (let i = 0; i < revocations; i += 1) {
      const { serial, ocsp, listPath } = await issue(one)
      // So that there is an answer to be replaced.
      for (const replica of [one, other]) await statusOf(replica, ocsp)
      const began = performance.now()
      const { status } = await call({
        url: `${one.url}/${serial}/revocation`,
        ca: one.ca,
        method: 'POST',
        headers: one.headers,
        body: JSON.stringify({ reason: 'superseded' }),
      })
      if (status !== 200) throw new Error(`revoking is answered with ${status}`)
      const from = performance.now()
      times.revoking.push(from - began)
      const since = async (list: number[], seen: () => Promise<boolean>): Promise<void> => {
        while (!(await seen())) await pause(10)
        list.push(performance.now() - from)
      }
      await since(times.sameReplica, async () => (await statusOf(one, ocsp)) === 'revoked')
      await since(times.otherReplica, async () => (await statusOf(other, ocsp)) === 'revoked')
      revoked.push(since(times.list, () => isListed(one, listPath, serial)))
      await pause(Math.random() * 200)
    }
    await Promise.all(revoked)
    tell(`${revocations} revocations have arrived`)
    const { revoking, sameReplica, otherReplica, list } = times
    return {
      revocations,
      revoking: quantiles(revoking),
      sameReplica: quantiles(sameReplica),
      otherReplica: quantiles(otherReplica),
      list: quantiles(list),
    }
  } finally {
    await other.close()
    await one.close()
  }
}

const issue = async ({ url, ca, headers, body }: Target) => {
  const { serial, certificate, chain } = JSON.parse((await call({ url, ca, method: 'POST', headers, body })).text)
  const [leaf, issuer] = [certificate, chain[0]].map((pem) => parseCertificate(parsePem(pem, 'CERTIFICATE')).facts)
  if (!leaf || !issuer) throw new Error('there is no certificate')
  const id = encodeCertId('sha1', issuer.subjectDer, keyBits(issuer.spki), leaf.serial)
  return { serial: serial as string, ocsp: requestFor(id), listPath: new URL(leaf.crlUrls[0] ?? '').pathname }
}

const statusOf = async ({ publicUrl = '' }: Target, request: Buffer): Promise<string> => {
  const answer = await fetch(`${publicUrl}/ocsp/default`, {
    method: 'POST',
    headers: { 'content-type': 'application/ocsp-request' },
    body: new Uint8Array(request),
  })
  const read = parseOcspResponse(Buffer.from(await answer.arrayBuffer()))
  return read.status === 'successful' ? (read.basic.responses[0]?.status.kind ?? '') : read.status
}

const isListed = async ({ publicUrl = '' }: Target, path: string, serial: string): Promise<boolean> => {
  const answer = await fetch(`${publicUrl}${path}`)
  const list = parseCrl(Buffer.from(await answer.arrayBuffer()))
  return list.revoked.some((entry) => entry.serial.toString('hex') === serial)
}

const quantiles = (times: readonly number[]): Quantiles => {
  const sorted = [...times].sort((a, b) => a - b)
  return { p50: sorted[sorted.length >> 1] ?? 0, p99: sorted[Math.floor(sorted.length * 0.99)] ?? 0 }
}

const revocations = 200
