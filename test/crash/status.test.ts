/**
 * Two real processes, killed while they publish and revoke. What relying parties are told is watched all the while: lists
 * never go back, nobody hears `good` after whoever revoked was answered, and every revocation is on a list in time.
 * `CHANCERY_TEST_KILLS` says how often (8).
 */
import { createHash } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { Agent, request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

import t, { type Test } from 'tap'

import { parseCertificate } from '../../src/x509/certificate.ts'
import { parseCrl } from '../../src/x509/crl.ts'
import { keyBits } from '../../src/x509/keys.ts'
import { parsePem } from '../../src/x509/pem.ts'
import { encodeCertId } from '../helpers/cert-id.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { type Instance, startInstance } from '../helpers/instance.ts'
import { parseOcspResponse } from '../helpers/ocsp-response.ts'
import { freePort } from '../helpers/port.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor } from '../http/people.ts'
import { seq } from '../x509/build.ts'
import { faultsInRecords } from './checker.ts'

const kills = Number(process.env['CHANCERY_TEST_KILLS'] ?? 8)
const certificates = 15 * kills
t.setTimeout(900_000)

type Replica = 0 | 1

const openPlace = async (t: Test) => {
  const database = await openTestDatabase({ teardown: () => {} })
  const data = await mkdtemp(join(tmpdir(), 'chancery-status-'))
  const ports = await Promise.all([freePort(), freePort(), freePort(), freePort()])
  const instances: Instance[] = []
  const start = (i: Replica): Instance => {
    const instance = startInstance({
      data,
      port: ports[i] as number,
      publicPort: ports[i + 2] as number,
      servingUrl: database.servingUrl,
      ownerUrl: database.ownerUrl,
      // All of the 512 lists are always due, so that a kill meets one on its way.
      env: { CHANCERY_CRL_PERIOD: '1s', CHANCERY_CRL_VALIDITY: '5m' },
    })
    instances.push(instance)
    return instance
  }
  t.teardown(async () => {
    for (const instance of instances) instance.signal('SIGKILL')
    await Promise.all(instances.map(({ exited }) => exited))
    await database.close()
    await rm(data, { recursive: true, force: true })
  })
  const agents = [new Agent({ keepAlive: true }), new Agent({ keepAlive: true })]
  t.teardown(async () => agents.forEach((agent) => void agent.destroy()))
  const call = async (i: Replica, path: string, body: object): Promise<{ status: number; text: string }> => {
    const token = (await readFile(join(data, 'admin.token'), 'utf8')).trim()
    const ca = await readFile(join(data, 'root.pem'), 'utf8')
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
    return new Promise((resolve, reject) => {
      const options = {
        host: '127.0.0.1',
        port: ports[i],
        ca,
        agent: agents[i],
        method: 'POST',
        path,
        headers,
        timeout: 8_000,
      }
      const sent = request(options as object, (response) => {
        let text = ''
        response.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk
        })
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text }))
        response.on('error', reject)
      })
      sent.on('timeout', () => sent.destroy())
      sent.on('error', reject)
      sent.end(JSON.stringify(body))
    })
  }
  return { start, call, database, publicUrl: (i: Replica) => `http://127.0.0.1:${ports[i + 2]}` }
}

interface Certificate {
  readonly serial: string
  readonly ocsp: Buffer
  readonly list: string
}

const readIssued = (text: string): Certificate => {
  const { serial, certificate, chain } = JSON.parse(text)
  const issuer = parseCertificate(parsePem(chain[0], 'CERTIFICATE')).facts
  const id = encodeCertId('sha1', issuer.subjectDer, keyBits(issuer.spki), Buffer.from(serial, 'hex'))
  const { crlUrls } = parseCertificate(parsePem(certificate, 'CERTIFICATE')).facts
  return { serial, ocsp: seq(seq(seq(seq(id)))), list: new URL(crlUrls[0] ?? '').pathname }
}

/** What one replica says, or undefined when it is down. */
const statusAt = async (url: string, body: Buffer): Promise<string | undefined> => {
  try {
    const headers = { 'content-type': 'application/ocsp-request' }
    const answer = await fetch(`${url}/ocsp/default`, { method: 'POST', headers, body: new Uint8Array(body) })
    if (answer.status !== 200) return undefined
    const read = parseOcspResponse(Buffer.from(await answer.arrayBuffer()))
    return read.status === 'successful' ? read.basic.responses[0]?.status.kind : read.status
  } catch {
    return undefined
  }
}

const eitherReplica = (): Replica => (Math.random() < 0.5 ? 0 : 1)

/** Fetches lists from both replicas again and again, and remembers what contradicts what was seen before. */
const watchLists = (urlOf: (i: Replica) => string, paths: () => readonly string[]) => {
  const contents = new Map<string, string>()
  const newest = new Map<string, bigint>()
  const listedAt = new Map<string, number>()
  const faults = new Set<string>()
  let stopped = false
  const look = async (i: Replica, path: string): Promise<void> => {
    const answer = await fetch(`${urlOf(i)}${path}`).catch(() => undefined)
    if (answer?.status !== 200) return
    const der = Buffer.from(await answer.arrayBuffer().catch(() => new ArrayBuffer(0)))
    if (der.length === 0) return
    const { number, revoked } = parseCrl(der)
    const digest = createHash('sha256').update(der).digest('hex')
    const known = contents.get(`${path} ${number}`) ?? digest
    contents.set(`${path} ${number}`, known)
    if (known !== digest) faults.add(`number ${number} of ${path} has two contents`)
    const place = `${i} ${path}`
    if (number < (newest.get(place) ?? 0n)) faults.add(`${path} went back to number ${number} on replica ${i}`)
    newest.set(place, number)
    for (const { serial } of revoked) {
      const text = serial.toString('hex')
      if (!listedAt.has(text)) listedAt.set(text, Date.now())
    }
  }
  const running = (async () => {
    while (!stopped) {
      for (const path of paths()) for (const i of [0, 1] as const) await look(i, path)
      await pause(20)
    }
  })()
  return {
    contents,
    listedAt,
    faults,
    stop: async () => {
      stopped = true
      await running
    },
  }
}

slowTest(`${kills} kill -9 while two replicas publish and revoke`, async (t) => {
  const { start, call, database, publicUrl } = await openPlace(t)
  const instances = [start(0)]
  await instances[0]?.ready()
  instances.push(start(1))
  await instances[1]?.ready()
  const issued: Certificate[] = []
  for (let i = 0; i < certificates; i += 1) {
    const answer = await call(eitherReplica(), '/v1/certificates', { csr: csrFor('x.example.com'), profile: 'server' })
    t.equal(answer.status, 201)
    issued.push(readIssued(answer.text))
  }
  const revokedAt = new Map<string, number>()
  const good: string[] = []
  const other: string[] = []
  let paths: string[] = []
  const watch = watchLists(publicUrl, () => paths)
  let stopping = false
  const checks: Promise<void>[] = []

  const revoke = async ({ serial, ocsp, list }: Certificate): Promise<void> => {
    for (;;) {
      const i = eitherReplica()
      const path = `/v1/certificates/${serial}/revocation`
      const answer = await call(i, path, { reason: 'superseded' }).catch(() => undefined)
      if (answer?.status === 200) {
        revokedAt.set(serial, Date.now())
        paths = [...new Set([...paths.slice(-8), list])]
        if ((await statusAt(publicUrl(i), ocsp)) === 'good') good.push(`${serial}: replica ${i} after its own 200`)
        checks.push(
          pause(2_000).then(async () => {
            for (const each of [0, 1] as const)
              if ((await statusAt(publicUrl(each), ocsp)) === 'good') good.push(`${serial}: replica ${each} after 2 s`)
          }),
        )
        return
      }
      if (answer && answer.status !== 503) other.push(`${answer.status} ${answer.text}`)
      await pause(50)
    }
  }
  const revoking = (async () => {
    for (const certificate of issued) {
      await revoke(certificate)
      await pause(stopping ? 0 : 60)
    }
  })()

  for (let kill = 0; kill < kills; kill += 1) {
    await pause(100 + Math.random() * 500)
    const i = eitherReplica()
    instances[i]?.signal('SIGKILL')
    await instances[i]?.exited
    instances[i] = start(i)
    await instances[i]?.ready()
  }
  stopping = true
  await revoking
  await Promise.all(checks)
  paths = [...new Set(issued.map(({ list }) => list))]
  for (const deadline = Date.now() + 70_000; Date.now() < deadline; await pause(200))
    if (issued.every(({ serial }) => watch.listedAt.has(serial))) break
  await watch.stop()

  t.same(good, [], 'nobody was told good after that')
  t.same(other, [], 'and no revoker anything final but success')
  t.same([...watch.faults], [])
  t.equal(revokedAt.size, certificates)
  t.same(
    issued.filter(({ serial }) => !watch.listedAt.has(serial)).map(({ serial }) => serial),
    [],
    'every revocation is on a list',
  )
  const records = await faultsInRecords(database.ownerUrl, [])
  t.same(
    records.filter((fault) => !/has no outcome/.test(fault)),
    [],
  )
  t.comment(`${watch.contents.size} lists seen of ${paths.length} shards; ${certificates} revocations`)
})
