/** One owner for a public key: what a requester can do with a copy of another's CSR. */
import { generateKeyPairSync, type KeyObject } from 'node:crypto'

import t from 'tap'

import { signKeyProof } from '../../src/keys/key-proof.ts'
import { openTestService } from '../helpers/service.ts'
import { pem, requestBy } from '../x509/build.ts'
import { csrFor, employ } from './people.ts'

const service = await openTestService(t)
const grant = { profiles: ['server'], revoke: true }
const victim = await employ(service, 'victim', 'requester', grant)
const attacker = await employ(service, 'attacker', 'requester', grant)
const operator = await employ(service, 'ops', 'operator')
const controller = await employ(service, 'controller', 'requester', { profiles: ['server'], onBehalfOf: {} })

const inUse = { status: 409, json: { code: 'key.in_use', retryable: false, violations: [{ check: 'key.principal' }] } }

const issue = (token: string, csr: string, more: object = {}) =>
  service.request('POST', '/v1/certificates', { token, body: { csr, profile: 'server', ...more } })
const revoke = (token: string, serial: string, reason: string) =>
  service.request('POST', `/v1/certificates/${serial}/revocation`, { token, body: { reason } })
const share = (principal: string) =>
  service.request('POST', '/v1/grants', {
    body: { principal, role: 'requester', profiles: ['server'], sharedKeys: true },
  })
const newRequest = (): { readonly csr: string; readonly key: KeyObject } => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return { csr: pem(requestBy(privateKey, 'web.example.com')), key: privateKey }
}

t.test('a copy of a CSR does not let its holder block the key as compromised', async (t) => {
  const { csr, key } = newRequest()
  const stolen = await issue(attacker, csr)
  t.equal(stolen.status, 201, 'before its owner has asked')
  t.match(await revoke(attacker, stolen.json.serial, 'keyCompromise'), {
    status: 403,
    json: { code: 'revocation.proof', retryable: false },
  })
  t.match(await revoke(attacker, stolen.json.serial, 'superseded'), { status: 200 })
  t.match(await issue(victim, csr), inUse)
  t.equal((await share('victim')).status, 201)
  const shared = await issue(victim, csr)
  t.equal(shared.status, 201, 'the key is not blocked, and a grant with sharedKeys lets the victim use it')
  const pkcs8 = key.export({ type: 'pkcs8', format: 'pem' }) as string
  const said = { issuer: 'default', serial: shared.json.serial, reason: 'keyCompromise' }
  const proof = await signKeyProof({ ...said, iat: Math.floor(Date.now() / 1000) }, pkcs8)
  const byKey = { token: null, headers: { 'content-type': 'application/jose' }, body: proof }
  const path = `/v1/certificates/${shared.json.serial}/revocation/by-key`
  t.equal((await service.request('POST', path, byKey)).status, 200)
  for (const token of [victim, attacker])
    t.match(await issue(token, csr), { status: 422, json: { code: 'key.blocked' } }, 'a proof by the key blocks it')
})

t.test('an operator blocks a key as compromised without a proof', async (t) => {
  const { csr } = newRequest()
  const { json } = await issue(attacker, csr)
  t.match(await revoke(operator, json.serial, 'keyCompromise'), { status: 200 })
  t.match(await issue(attacker, csr), { status: 422, json: { code: 'key.blocked' } })
})

t.test('of principals that race with one key, one gets certificates', async (t) => {
  const racers = [
    attacker,
    ...(await Promise.all([1, 2, 3].map((n) => employ(service, `racer-${n}`, 'requester', grant)))),
  ]
  for (let round = 0; round < 10; round += 1) {
    const csr = csrFor('race.example.com')
    const answers = await Promise.all(racers.map((token) => issue(token, csr)))
    const lost = answers.filter(({ status }) => status !== 201)
    t.equal(lost.length, racers.length - 1)
    for (const answer of lost) t.match(answer, inUse)
    const winner = racers[answers.findIndex(({ status }) => status === 201)] as string
    t.equal((await issue(winner, csr)).status, 201, 'its owner renews with it')
  }
})

t.test('a key belongs to the namespace or the user on whose behalf it was first certified', async (t) => {
  const csr = csrFor('tenant.example.com')
  const [shop, other, user] = [
    { user: 'cert-manager', namespace: 'shop' },
    { user: 'cert-manager', namespace: 'other' },
    { user: 'shop' },
  ]
  t.equal((await issue(controller, csr, { onBehalfOf: shop })).status, 201)
  t.equal((await issue(controller, csr, { onBehalfOf: { ...shop, user: 'else' } })).status, 201)
  for (const onBehalfOf of [other, user]) t.match(await issue(controller, csr, { onBehalfOf }), inUse)
  t.match(await issue(controller, csr), inUse, 'nor is it the key of the controller itself')
})

t.test('a dry run tells that a key is in use, and claims none', async (t) => {
  const { csr } = newRequest()
  const dryRun = async (token: string) =>
    (await service.request('POST', '/v1/certificates?dryRun=true', { token, body: { csr, profile: 'server' } })).json
  t.match(await dryRun(attacker), { allowed: true })
  const owner = await employ(service, 'owner', 'requester', grant)
  t.equal((await issue(owner, csr)).status, 201)
  t.match(await dryRun(attacker), { allowed: false, violations: [{ check: 'key.principal' }] })
  await share('attacker')
  t.match(await dryRun(attacker), { allowed: true })
})
