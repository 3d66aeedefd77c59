import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { mock } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import t, { type Test } from 'tap'

import { serve } from '../../src/cli/serve.ts'
import { loadConfig } from '../../src/config/config.ts'
import { parseCertificate } from '../../src/x509/certificate.ts'
import { parseCrl } from '../../src/x509/crl.ts'
import { keyBits } from '../../src/x509/keys.ts'
import { parsePem } from '../../src/x509/pem.ts'
import { encodeCertId } from '../helpers/cert-id.ts'
import { issueAt, revokeAt } from '../helpers/certificates.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { bare } from '../helpers/environment.ts'
import { quiet } from '../helpers/log.ts'
import { parseOcspResponse } from '../helpers/ocsp-response.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { askSql, openSql } from '../helpers/sql.ts'
import { seq } from '../x509/build.ts'

const [moment, quarter, minute, hour, day] = [2_000, 15_000, 60_000, 3_600_000, 86_400_000]

/** By its timer, what has neither come yet nor been given up. */
const planned = new Map<unknown, { readonly after: number | undefined; readonly run: () => void }>()
const later = globalThis.setTimeout
mock.method(globalThis, 'setTimeout', (run: (...given: unknown[]) => void, after?: number, ...given: unknown[]) => {
  const once = (): void => {
    planned.delete(timer)
    run(...given)
  }
  const timer = later(once, after)
  planned.set(timer, { after, run: once })
  return timer
})
const { mock: cleared } = mock.method(globalThis, 'clearTimeout')

/** Timers after so many milliseconds that wait, and hold no process, as those of jobs do not. */
const waiting = (milliseconds: number) => {
  for (const { arguments: given } of cleared.calls) planned.delete(given[0])
  cleared.resetCalls()
  return [...planned].filter(([timer, { after }]) => after === milliseconds && !(timer as NodeJS.Timeout).hasRef())
}

/** What is to be done then is begun now. */
const begin = (milliseconds: number): void => {
  for (const [timer, { run }] of waiting(milliseconds)) {
    clearTimeout(timer as NodeJS.Timeout)
    run()
  }
}

const until = async (holds: () => Promise<boolean>): Promise<void> => {
  while (!(await holds())) await sleep(10)
}

/** It is done now, and again: a run that is under way may have looked too soon, and is no timer that waits. */
const done = (milliseconds: number, holds: () => Promise<boolean>): Promise<void> =>
  until(() => {
    begin(milliseconds)
    return holds()
  })

const service = await openTestService(t)

const issue = async (): Promise<string> => (await issueAt(service)).serial
const revoke = (serial: string): Promise<void> => revokeAt(service, serial)

t.test('each day, whoever has the rights of the owner drops what is past retention', async (t) => {
  const owner = await openSql(t, service.database.ownerUrl)
  await owner.query(`insert into refusals (id, at, principal, code, digest, detail, violations)
    select gen_random_uuid(), now() - interval '2 years', 'noisy', 'csr.pem', '', '', '[]'`)
  const isLeft = async () => (await owner.query(`select from refusals where principal = 'noisy'`)).rowCount === 1
  t.equal(await isLeft(), true)
  await done(day, async () => !(await isLeft()))
})

t.test('every two seconds an instance says that it is alive', async (t) => {
  const owner = await openSql(t, service.database.ownerUrl)
  const seenAt = async () => (await owner.query<{ at: Date }>('select seen_at as at from replicas')).rows[0]?.at
  const before = await seenAt()
  await done(moment, async () => (await seenAt())?.getTime() !== before?.getTime())
})

t.test('each quarter of a minute it is measured since when a revocation is on no list', async (t) => {
  const isMeasured = async (): Promise<boolean> =>
    /^chancery_crl_unlisted_seconds\{issuer="default"\} \d/m.test((await service.request('GET', '/metrics')).text)
  t.equal(await isMeasured(), false)
  // The list may be there first.
  await until(async () => {
    await revoke(await issue())
    begin(quarter)
    await sleep(50)
    return isMeasured()
  })
})

t.test('lists are made as soon as it serves, and another instance serves what one has made', async (t) => {
  const other = await openTestService(t, {}, service)
  const serial = await issue()
  const { certificate } = (await service.request('GET', `/v1/certificates/${serial}`)).json
  const [url = ''] = parseCertificate(parsePem(certificate, 'CERTIFICATE')).facts.crlUrls
  const listOf = async ({ publicUrl }: { readonly publicUrl: string }) => {
    const answer = await fetch(new URL(new URL(url).pathname, publicUrl))
    return answer.status === 200 ? parseCrl(Buffer.from(await answer.arrayBuffer())) : undefined
  }
  await until(async () => (await listOf(service)) !== undefined)
  const before = await listOf(service)
  await revoke(serial)
  // Either may make it: where one has not renewed its lease for ten seconds, the other has it.
  await service.service.publishCrls()
  const has = (list: Awaited<ReturnType<typeof listOf>>): boolean =>
    (list?.revoked ?? []).some((revoked) => revoked.serial.toString('hex') === serial)
  await until(async () => has(await listOf(service)))
  t.ok(((await listOf(service))?.number ?? 0n) > (before?.number ?? 0n))
  await until(async () => {
    const [made, seen] = [await listOf(service), await listOf(other)]
    return has(seen) && seen?.number === made?.number
  })
  await other.close()
})

t.test('lists that were published are timed, and those that could not be are counted', async (t) => {
  const counted = async (name: string): Promise<number> => {
    const { text } = await service.request('GET', '/metrics')
    return Number(new RegExp(`^${name}\\{issuer="default"\\} (\\d+)$`, 'm').exec(text)?.[1] ?? 0)
  }
  const published = await counted('chancery_crl_publish_seconds_count')
  await revoke(await issue())
  // It holds back for a while where another instance was at it, too.
  await until(async () => {
    await service.service.publishCrls()
    return (await counted('chancery_crl_publish_seconds_count')) > published
  })
  const owner = await openSql(t, service.database.ownerUrl)
  const failures = await counted('chancery_crl_failures_total')
  await owner.query('revoke insert on crls from chancery')
  await revoke(await issue())
  await until(async () => {
    await service.service.publishCrls()
    return (await counted('chancery_crl_failures_total')) > failures
  })
  await owner.query('grant insert on crls to chancery')
})

t.test('each minute, a responder whose certificate was revoked gives way to another', async (t) => {
  const { certificate } = (await service.request('GET', '/v1/issuers/default')).json
  const { subjectDer, spki } = parseCertificate(parsePem(certificate, 'CERTIFICATE')).facts
  const id = encodeCertId('sha1', subjectDer, keyBits(spki), Buffer.from(await issue(), 'hex'))
  const responder = async (): Promise<string> => {
    const headers = { 'content-type': 'application/ocsp-request' }
    const body = seq(seq(seq(seq(id))))
    const ask = () => fetch(`${service.publicUrl}/ocsp/default`, { method: 'POST', headers, body })
    let answer = await ask()
    // Where others leave it no processor it says to come again.
    while (answer.status === 503) answer = await ask()
    t.equal(answer.status, 200)
    const read = parseOcspResponse(Buffer.from(await answer.arrayBuffer()))
    if (read.status !== 'successful') throw new Error(read.status)
    return parseCertificate(read.basic.certificates[0] as Buffer).facts.serial.toString('hex')
  }
  const first = await responder()
  begin(minute)
  t.equal(await responder(), first)
  await revoke(first)
  await done(minute, async () => (await responder()) !== first)
})

t.test('production makes no list of a root, and leaves to its owner what is past retention', async (t) => {
  const { servingUrl, ownerUrl } = await openTestDatabase(t)
  const data = await mkdtemp(join(tmpdir(), 'chancery-serve-'))
  t.teardown(() => rm(data, { recursive: true, force: true }))
  const config = await loadConfig({
    ...bare,
    CHANCERY_MODE: 'production',
    CHANCERY_DATA: data,
    CHANCERY_LISTEN: '127.0.0.1:0',
    CHANCERY_PUBLIC_LISTEN: '127.0.0.1:0',
    CHANCERY_PUBLIC_URL: 'http://pki.example.com',
    CHANCERY_ALLOW_SOFTWARE_KEYS: 'yes',
    CHANCERY_KEY_PASSPHRASE: 'a passphrase of this test',
    CHANCERY_DATABASE_URL: servingUrl,
    CHANCERY_MIGRATION_URL: ownerUrl,
  })
  const counts = () => [quarter, hour, day].map((milliseconds) => waiting(milliseconds).length)
  // Its timers come and go.
  await service.close()
  t.same(counts(), [0, 0, 0])
  const { close } = await serve(config, quiet)
  t.teardown(close)
  t.same(counts(), [1, 0, 0])
})

t.test(
  'a development that does not own its tables says so, and leaves what is past retention to the owner',
  async (t) => {
    const { servingUrl } = await openTestDatabase(t)
    t.strictSame(await maintained(t, { CHANCERY_DATABASE_URL: servingUrl }), ['maintenance.left'])
    t.equal(waiting(day).length, 0)
  },
)

slowTest(
  'an owner who lacks a right is no other role: that is told as a failure, and tried again each day',
  async (t) => {
    const { servingUrl, ownerUrl } = await openTestDatabase(t)
    await askSql(ownerUrl, 'revoke execute on function maintain_refusals(interval) from current_user')
    const urls = { CHANCERY_DATABASE_URL: servingUrl, CHANCERY_MIGRATION_URL: ownerUrl }
    t.strictSame(await maintained(t, urls), ['maintenance.failed'])
    t.equal(waiting(day).length, 1)
  },
)

/** What a development that starts with these URLs, and serves until the test ends, logs of its maintenance. */
const maintained = async (t: Test, urls: Readonly<Record<string, string>>): Promise<readonly unknown[]> => {
  const data = await mkdtemp(join(tmpdir(), 'chancery-serve-'))
  t.teardown(() => rm(data, { recursive: true, force: true }))
  const config = await loadConfig({
    ...bare,
    CHANCERY_DATA: data,
    CHANCERY_LISTEN: '127.0.0.1:0',
    CHANCERY_PUBLIC_LISTEN: '127.0.0.1:0',
    CHANCERY_PUBLIC_URL: 'http://pki.example.com',
    ...urls,
  })
  const told: unknown[] = []
  const tell = ({ event }: object & { event?: unknown }) => void told.push(event)
  const { close } = await serve(config, { ...quiet, info: tell, warn: tell })
  t.teardown(close)
  return told.filter((event) => `${event}`.startsWith('maintenance.'))
}
