/** Several tokens of one module: what is wrong with one costs the keys of no other. */
import { execFile } from 'node:child_process'
import { request } from 'node:https'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

import t from 'tap'

import { serve } from '../../src/cli/serve.ts'
import type { SigningKey } from '../../src/keys/signing-key.ts'
import { named, openTestRoot } from '../helpers/ceremony.ts'
import { quiet } from '../helpers/log.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor } from '../http/people.ts'
import { openTestSigners } from './signers.ts'
import { openShim } from './softhsm.ts'

t.setTimeout(300_000)
const messageOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => '',
    (error: Error) => error.message,
  )

/** Signs on and on; resolves, when it is told to stop, to what came instead of signatures. */
const signOn = (key: SigningKey) => {
  let isOver = false
  const faults: unknown[] = []
  const signing = (async () => {
    let signed = 0
    for (; !isOver; signed += 1) {
      const [signature] = await key.sign([Buffer.from('message')])
      if (!Buffer.isBuffer(signature)) faults.push(signature?.message)
      await sleep(2)
    }
    return signed
  })()
  return async () => {
    isOver = true
    return { signed: await signing, faults }
  }
}

slowTest(
  'signing goes on while others look for tokens and keys that are not there, and fail to make some',
  async (t) => {
    const hsm = await openShim(t)
    const { keys, events } = await openTestSigners(t, hsm)
    const stop = signOn(await keys.create('pkcs11:token=ca;object=one', 'ec-p256'))
    const none = `There is no token with label cq. The module ${hsm.module} shows ca.`
    for (let i = 0; i < 3; i += 1) t.equal(await messageOf(keys.open('pkcs11:token=cq;object=x')), none)
    t.equal(await messageOf(keys.create('pkcs11:token=cq;object=x', 'ec-p256')), none)
    t.match(await messageOf(keys.open('pkcs11:token=ca;object=x')), /has no private key x/)
    for (const code of [5, 6, 0x30, 0x8000_0001]) {
      await hsm.misbehave(`generate-error=${code}`)
      t.match(await messageOf(keys.create('pkcs11:token=ca;object=x', 'ec-p256')), /does not make the key/)
    }
    await hsm.misbehave()
    const { signed, faults } = await stop()
    t.same(faults, [])
    t.ok(signed > 50, `${signed} signatures`)
    await sleep(500)
    const before = events.filter((event) => event === 'signer.ended').length
    await sleep(2_500)
    t.equal(events.filter((event) => event === 'signer.ended').length, before, 'and no process waits for a token')
  },
)

t.test('a token that comes later is found, though the module lists it only when it starts', async (t) => {
  const hsm = await openShim(t)
  const { keys } = await openTestSigners(t, hsm)
  const stop = signOn(await keys.create('pkcs11:token=ca;object=one', 'ec-p256'))
  t.match(await messageOf(keys.open('pkcs11:token=late;object=x')), /There is no token with label late/)
  await hsm.addToken('late')
  t.ok(await keys.create('pkcs11:token=late;object=x', 'ec-p256'))
  t.same((await stop()).faults, [])
})

slowTest('a key that is opened again in another process is on the roll again', async (t) => {
  const hsm = await openShim(t)
  const service = await openTestService(t, {
    CHANCERY_DEVELOPMENT_TOKEN: 'pkcs11:token=ca',
    CHANCERY_PKCS11_MODULE: hsm.module,
    CHANCERY_PKCS11_PIN_FILE: hsm.pinFile,
    ...hsm.env,
  })
  const issue = async (): Promise<number> =>
    (await service.request('POST', '/v1/certificates', { body: { csr: csrFor('a.example.com'), profile: 'server' } }))
      .status
  const opened = async (): Promise<number> => {
    const { json } = await service.request('GET', '/v1/events?type=key.opened')
    return json.items.filter(({ entry }: { entry: string }) => JSON.parse(entry).issuer === 'default').length
  }
  t.equal(await issue(), 201)
  t.equal(await opened(), 1)
  await hsm.misbehave('sign-crash')
  t.equal(await issue(), 503)
  await hsm.misbehave()
  for (const end = performance.now() + 5_000; (await issue()) !== 201 && performance.now() < end; ) await sleep(50)
  while ((await opened()) < 2) await sleep(20)
  // Whatever else it has come to stands before this on the roll.
  t.equal(await issue(), 201)
  t.equal(await opened(), 2)
})

slowTest('a mistyped token, and an issuer whose token is gone for good, cost nobody a certificate', async (t) => {
  const hsm = await openShim(t)
  await hsm.addToken('old')
  const service = await openTestService(t, {
    CHANCERY_DEVELOPMENT_TOKEN: 'pkcs11:token=ca',
    CHANCERY_PKCS11_MODULE: hsm.module,
    CHANCERY_PKCS11_PIN_FILE: hsm.pinFile,
    CHANCERY_STAGING_TIME: '0s',
    ...hsm.env,
  })
  let count = 0
  const issueAt = (url: string): Promise<number> =>
    new Promise((resolve, reject) => {
      count += 1
      const headers = { authorization: `Bearer ${service.adminToken}`, 'content-type': 'application/json' }
      const options = { method: 'POST', rejectUnauthorized: false, headers }
      const sent = request(new URL('/v1/certificates', url), options, (response) => {
        response.resume().on('end', () => resolve(response.statusCode ?? 0))
      })
      sent.on('error', reject)
      sent.end(JSON.stringify({ csr: csrFor(`a${count}.example.com`), profile: 'server' }))
    })
  const issueFor = async (url: string, ms: number) => {
    const tally: Record<string, number> = {}
    for (const end = performance.now() + ms; performance.now() < end; await sleep(20)) {
      const status = await issueAt(url)
      tally[status] = (tally[status] ?? 0) + 1
    }
    return tally
  }
  const ask = (name: string, key: string) =>
    service.request('POST', '/v1/issuer-requests', { body: { name, authority: 'other', subject: named(name), key } })

  const [mistyped, tally] = await Promise.all([
    ask('typo', 'pkcs11:token=cq;object=typo'),
    issueFor(service.url, 3_000),
  ])
  t.match(mistyped, { status: 503, json: { detail: /There is no token with label cq/ } })
  t.same(Object.keys(tally), ['201'])

  const root = openTestRoot()
  const { json } = await ask('x-1', 'pkcs11:token=old;object=x-1')
  await service.request('PUT', '/v1/issuers/x-1', { body: { chain: root.certify(json.csr) + root.pem } })
  await service.request('POST', '/v1/issuers/x-1/moves', { body: { move: 'halt', reason: 'old' } })
  await promisify(execFile)('softhsm2-util', ['--delete-token', '--token', 'old'], {
    env: { ...process.env, ...hsm.env },
  })
  const ended: string[] = []
  const error = (line: object): void => {
    const { event, place } = line as { event: string; place: string }
    if (event === 'signer.ended') ended.push(place)
  }
  const { config } = service
  const listen = { ...config.listen, port: 0 }
  const another = await serve({ ...config, listen, publicListen: listen }, { ...quiet, error })
  t.teardown(another.close)
  t.same(Object.keys(await issueFor(another.addresses.api, 8_000)), ['201'])
  t.match(ended[0], /token old/)
  t.ok(ended.length <= 6, `${ended.length} processes in eight seconds: ever more rarely`)
  t.same(
    ended.filter((place) => !place.includes('token old')),
    [],
  )
})
