/** The ways up from an issuer when one root follows another: what is sent along is enough for whoever trusts either. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t, { type Test } from 'tap'

import { newSerial } from '../../src/ca/issuance/serial.ts'
import { encodeCrossTbs, encodeRootCrlTbs, seal, signIntermediate, signRoot } from '../../src/ca/issuers/ceremony.ts'
import { pooledRandom } from '../../src/keys/random.ts'
import { parseCertificate } from '../../src/x509/certificate.ts'
import { parseRequest } from '../../src/x509/csr.ts'
import { parsePublicKey } from '../../src/x509/keys.ts'
import { encodePem, parsePem } from '../../src/x509/pem.ts'
import { memoryKey, named, openTestRoot, span } from '../helpers/ceremony.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { tamper } from '../helpers/tamper.ts'
import { csrFor } from '../http/people.ts'
import { assertTools, run } from '../interop/tools.ts'
import { oid } from '../x509/build.ts'

await assertTools('openssl')

const random = pooledRandom()
const fresh = (days: number) => ({ serial: newSerial(random), ...span(days) })
const pem = (...chain: readonly Buffer[]): string => chain.map((der) => encodePem('CERTIFICATE', der)).join('')

/** Two roots, with the certificate for the second that the first has signed. */
const openRoots = async (names: readonly [string, string], pathLength?: number) => {
  const keys = [memoryKey(), memoryKey()] as const
  const root = (i: 0 | 1) =>
    signRoot(keys[i], { subject: named(names[i]), ...fresh(1_000), ...(pathLength !== undefined && { pathLength }) })
  const [old, next] = [await root(0), await root(1)]
  const cross = await seal(keys[0], encodeCrossTbs(keys[0], old, { other: next, ...fresh(900) }))
  const certify = (csr: string): Promise<Buffer> => {
    const { subject, key } = parseRequest(parsePem(csr, 'CERTIFICATE REQUEST'))
    return signIntermediate(keys[1], next, { subject, spki: key.spki, ...fresh(800) })
  }
  /** The old root takes the cross-certificate back. */
  const revoke = (): Promise<Buffer> => {
    const revokedAt = new Date(Math.floor(Date.now() / 1000) * 1000 - 60_000)
    const { serial } = parseCertificate(cross).facts
    const times = { thisUpdate: revokedAt, nextUpdate: new Date(revokedAt.getTime() + 86_400_000) }
    const revoked = [{ serial, revokedAt, reason: 'cessationOfOperation' as const }]
    return seal(keys[0], encodeRootCrlTbs(keys[0], old, { number: 1n, ...times, revoked }))
  }
  return { old, next, cross, certify, revoke }
}

const openBench = async (t: Test) => {
  const service = await openTestService(t, { CHANCERY_STAGING_TIME: '0s' })
  const folder = await mkdtemp(join(tmpdir(), 'chancery-ways-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const verify = async (root: Buffer, leaf: string, chain: readonly string[]): Promise<string> => {
    const file = async (name: string, text: string): Promise<string> => {
      await writeFile(join(folder, name), text)
      return join(folder, name)
    }
    const files = ['-CAfile', await file('root', pem(root)), '-untrusted', await file('chain', chain.join(''))]
    const { stdout, stderr } = await run('openssl', ['verify', '-x509_strict', ...files, await file('leaf', leaf)])
    return /OK$/m.test(stdout) ? 'OK' : stderr
  }
  return { service, verify }
}

const ask = async (service: TestService, name: string): Promise<string> => {
  const body = { name, authority: 'default', subject: named(name) }
  return (await service.request('POST', '/v1/issuer-requests', { body })).json.csr
}
const put = (service: TestService, path: string, body: object) =>
  service.request('PUT', `/v1/issuers/${path}`, { body })
const activate = (service: TestService, name: string) =>
  service.request('POST', `/v1/issuers/${name}/moves`, { body: { move: 'activate' } })
const issue = (service: TestService) =>
  service.request('POST', '/v1/certificates', { body: { csr: csrFor('www.example.com'), profile: 'server' } })
const rootsOf = async (service: TestService): Promise<readonly string[]> =>
  (
    await service.request('GET', '/v1/authorities/default/bundle?anchors=roots', {
      headers: { accept: 'application/json' },
    })
  ).json.items.map(({ certificate }: { certificate: string }) => certificate)

for (const [what, names, pathLength] of [
  ['another name', ['Root 1', 'Root 2'], undefined],
  ['the same name', ['Root', 'Root'], undefined],
  ['the same name, and room for one authority below', ['Root', 'Root'], 1],
] as const)
  t.test(`a root is followed by one of ${what}: whoever trusts either accepts a leaf with what is sent`, async (t) => {
    const { service, verify } = await openBench(t)
    const { old, next, cross, certify } = await openRoots(names, pathLength)
    const certificate = await certify(await ask(service, 'next'))
    const through = pem(certificate, cross, old)
    t.match((await put(service, 'next', { chain: through })).status, 201)
    t.equal((await activate(service, 'next')).status, 200)
    const { json: first } = await issue(service)
    t.same(first.chain, [pem(certificate), pem(cross)])
    t.equal(await verify(old, first.certificate, first.chain), 'OK')
    t.equal(await verify(next, first.certificate, first.chain), 'OK')
    t.notOk((await rootsOf(service)).includes(pem(next)), 'of the new root nothing was said yet')

    const both = await put(service, 'next/chains', { chains: [pem(certificate, next), through] })
    t.match(both, { status: 200, json: { chain: [pem(next)], otherChains: [[pem(cross), pem(old)]] } }, both.text)
    t.ok((await rootsOf(service)).includes(pem(next)))
    t.ok((await rootsOf(service)).includes(pem(old)))
    t.same((await issue(service)).json.chain, first.chain)
    const found = await service.request('GET', `/v1/certificates/${first.serial}`)
    t.same(found.json.chain, first.chain, 'read again as it was answered')

    await put(service, 'next/chains', { chains: [pem(certificate, next)] })
    const { json: last } = await issue(service)
    t.same(last.chain, [pem(certificate)], 'nobody has only the old root any more')
    t.equal(await verify(next, last.certificate, last.chain), 'OK')
    t.match(await verify(old, last.certificate, last.chain), /unable to get/)
    const { items } = (await service.request('GET', '/v1/events?type=issuer.chained')).json
    t.match(
      items.map(({ entry }: { entry: string }) => JSON.parse(entry)),
      [
        { issuer: 'next', by: 'admin', chains: [{ length: 2 }, { length: 3 }] },
        { issuer: 'next', by: 'admin', chains: [{ length: 2 }] },
      ],
    )
  })

slowTest('a cross-certificate that is revoked takes no issuer away to which another way leads', async (t) => {
  const { service } = await openBench(t)
  const { old, next, cross, certify, revoke } = await openRoots(['Root 1', 'Root 2'])
  const certificate = await certify(await ask(service, 'next'))
  const [straight, through] = [pem(certificate, next), pem(certificate, cross, old)]
  t.equal((await put(service, 'next', { chain: straight })).status, 201)
  t.equal((await put(service, 'next/chains', { chains: [straight, through] })).status, 200)
  const crl = (await revoke()).toString('base64')
  t.equal((await service.request('POST', '/v1/issuers/next/crl', { body: { crl } })).status, 200)
  const anchors = async () => (await service.request('GET', '/v1/authorities/default/bundle')).text
  t.ok((await anchors()).includes(pem(certificate)))
  t.equal((await activate(service, 'next')).status, 200)
  const { serial } = (await issue(service)).json
  const renewal = async () => (await service.request('GET', `/v1/certificates/${serial}/renewal-info`)).json.reason
  t.equal(await renewal(), 'age', 'the next one would be of the same issuer')
  const warned = async (): Promise<string> => {
    await new Promise((resolve) => setTimeout(resolve, 2_100))
    const { checks } = (await service.request('GET', '/readyz')).json
    return checks.find(({ name }: { name: string }) => name === 'crls').reason
  }
  t.match(
    await warned(),
    /has revoked one of the ways up from next: bring the others alone with chancery issuer chains/,
  )
  t.equal((await put(service, 'next/chains', { chains: [straight] })).status, 200)
  t.notMatch(await warned(), /revoked/)
  t.equal((await put(service, 'next/chains', { chains: [through] })).status, 200)
  t.match(await warned(), /has revoked next: halt it/)
  t.equal(await renewal(), 'issuer-ended')
  t.notOk((await anchors()).includes(pem(certificate)), 'but where it is the only one')
})

slowTest('what stands above an issuer already is asked nothing that it was not when it came', async (t) => {
  const { service: before, verify } = await openBench(t)
  const [root, between] = [openTestRoot('Root'), openTestRoot('Between')]
  const csr = await ask(before, 'below')
  const key = parsePublicKey(between.key.spki)
  const made = (): Buffer => {
    const more = { subject: named('Between'), key, pathLength: 1, ...span(900) }
    return parsePem(root.certify(csr, more), 'CERTIFICATE')
  }
  /** Without an authority key identifier, but for something that nobody knows in its place. */
  const laxly = async (): Promise<Buffer> => {
    const tbs = Buffer.from(parseCertificate(made()).tbs)
    tbs.set(oid('2.5.29.99'), tbs.indexOf(oid('2.5.29.35')))
    return seal(root.key, tbs)
  }
  const [old, other] = [await laxly(), await laxly()]
  const certificate = between.certify(csr)
  const fault = { status: 422, json: { violations: [{ check: 'chain.authorityKey', field: '/chain/1' }] } }
  t.match(await put(before, 'below', { chain: certificate + pem(old) + root.pem }), fault)
  t.equal((await put(before, 'below', { chain: certificate + pem(made()) + root.pem })).status, 201)
  const chain = [old, parsePem(root.pem, 'CERTIFICATE')]
  await tamper(before.database, [`update issuers set chain = $1::bytea[] where name = 'below'`, [chain]])

  const service = await openTestService(t, { CHANCERY_STAGING_TIME: '0s' }, before)
  t.equal((await activate(service, 'below')).status, 200)
  const leaf = (await issue(service)).json
  t.same(leaf.chain, [certificate, pem(old)], 'it serves')
  t.match(await verify(chain[1] as Buffer, leaf.certificate, leaf.chain), /Missing Authority Key Identifier/)
  const again = await put(service, 'below', { chain: certificate + pem(old) + root.pem })
  t.match(again.json, { code: 'state.exists', detail: /^The issuer below was imported already, .* and is active\.$/ })
  const [through, strictly] = [old, made()].map((one) => certificate + pem(one) + root.pem)
  t.equal((await put(service, 'below/chains', { chains: [through, strictly] })).status, 200, 'a better one beside it')
  const further = { chains: [strictly, certificate + pem(other) + root.pem] }
  t.match(await put(service, 'below/chains', further), {
    status: 422,
    json: { violations: [{ check: 'chain.authorityKey', field: '/chains/1/1' }] },
  })
})

slowTest('ways up that do not fit are refused, with their places', async (t) => {
  const { service } = await openBench(t)
  const { old, next, cross, certify } = await openRoots(['Root 1', 'Root 2'])
  const certificate = await certify(await ask(service, 'next'))
  const other = await certify(await ask(service, 'other'))
  const straight = pem(certificate, next)
  t.equal((await put(service, 'next', { chain: straight })).status, 201)
  for (const [chains, places] of [
    [[straight, pem(other, next)], ['chain.issuer /chains/1/0']],
    [
      [pem(certificate, old)],
      ['chain.path /chains/0/0', 'chain.authorityKey /chains/0/0', 'chain.signature /chains/0/0'],
    ],
    [
      [straight, pem(certificate, cross)],
      ['chain.path /chains/1/1', 'chain.signature /chains/1/1'],
    ],
    [[straight, 'nothing'], ['chain.pem /chains/1']],
  ] as const) {
    const { status, json } = await put(service, 'next/chains', { chains })
    t.match(json, { code: 'issuer.chain' })
    t.equal(status, 422)
    const told = (json.violations ?? []).map((one: { check: string; field: string }) => `${one.check} ${one.field}`)
    t.same(told, places)
  }
  t.equal((await put(service, 'nobody/chains', { chains: [straight] })).json.code, 'issuer.not_found')
  t.equal((await put(service, 'next/chains', { chains: [] })).json.code, 'request.malformed')
  await service.request('POST', '/v1/issuers/next/moves', { body: { move: 'discard' } })
  t.match((await put(service, 'next/chains', { chains: [straight] })).json, { code: 'issuer.state', status: 409 })
})
