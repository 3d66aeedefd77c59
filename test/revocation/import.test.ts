/** Lists that CAs above our issuers have signed: what is taken, what is refused, and what follows from them. */
import { hash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import t, { type Test } from 'tap'

import { encodeRootCrlTbs, type RootCrlInput, seal } from '../../src/ca/issuers/ceremony.ts'
import { type CrlImportsDeps, type Link, openCrlImports } from '../../src/ca/revocation/crl-import.ts'
import { unwise } from '../../src/cli/preflight.ts'
import { openDatabase } from '../../src/db/database.ts'
import type { SigningKey } from '../../src/keys/signing-key.ts'
import { signatureAlgorithm } from '../../src/x509/algorithms.ts'
import { parseCertificate } from '../../src/x509/certificate.ts'
import { parseCrl } from '../../src/x509/crl.ts'
import { encodePem, parsePem } from '../../src/x509/pem.ts'
import { named, openTestRoot } from '../helpers/ceremony.ts'
import { openInlineKeys } from '../helpers/keys.ts'
import { quiet } from '../helpers/log.ts'
import { type Answer, openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { bits, extension, integer, seq, tlv } from '../x509/build.ts'

let service: TestService
let key: SigningKey
let root: Buffer

t.before(async () => {
  service = await openTestService(t, { CHANCERY_STAGING_TIME: '0s' })
  await service.service.publishCrls()
  const keys = await openInlineKeys(service.config)
  key = await keys.open('file:offline-root/root.key.pem')
  root = await readFile(join(service.config.dataDir, 'offline-root', 'root.der'))
})

const now = (): number => Math.floor(Date.now() / 1000) * 1000
const list = (more: Partial<RootCrlInput> = {}): Promise<Buffer> => {
  const input = {
    number: 2n,
    thisUpdate: new Date(now() - 30_000),
    nextUpdate: new Date(now() + 100 * 86_400_000),
    revoked: [],
    ...more,
  }
  return seal(key, encodeRootCrlTbs(key, root, input))
}
const bring = (der: Buffer, issuer = 'default'): Promise<Answer> =>
  service.request('POST', `/v1/issuers/${issuer}/crl`, { body: { crl: encodePem('X509 CRL', der) } })
const served = async () => {
  const answer = await fetch(`${service.publicUrl}/crl/root.crl`)
  return parseCrl(Buffer.from(await answer.arrayBuffer()))
}
const crlCheck = async (): Promise<{ readonly ok: boolean; readonly reason: string }> => {
  await new Promise((resolve) => setTimeout(resolve, 2_100))
  const { checks } = (await service.request('GET', '/readyz')).json
  return checks.find(({ name }: { name: string }) => name === 'crls')
}

/** What operators are told besides, of issuers that a CA above has revoked. */
const toldByDoctor = async (t: Test, at = new Date()): Promise<readonly string[]> => {
  const db = openDatabase({ url: service.database.servingUrl, max: 1, log: quiet, applicationName: 'test' })
  t.teardown(() => db.close())
  return unwise(service.config, db, await openInlineKeys(service.config), at)
}
const toldOfRevoked = async (t: Test) => ({
  metric: (await service.request('GET', '/metrics')).text.match(/^chancery_issuer_revoked.*$/m)?.[0],
  doctor: (await toldByDoctor(t)).filter((one) => one.includes('CA above')),
})

t.test('a list that fits is served at once, for every issuer below, and once more changes nothing', async (t) => {
  const der = await list()
  const answer = await bring(der)
  t.match(answer, { status: 200, json: { number: '2' } })
  t.equal(answer.json.signer, hash('sha256', parseCertificate(root).facts.spki))
  t.equal((await served()).number, 2n)
  const again = await bring(der, 'kubernetes')
  t.same(again.json, answer.json)
  const base64 = await service.request('POST', '/v1/issuers/etcd/crl', { body: { crl: der.toString('base64') } })
  t.equal(base64.status, 200)
  const { items } = (await service.request('GET', '/v1/events?type=crl.imported')).json
  t.equal(items.length, 2, "development's own, and this one")
})

t.test('what does not fit', async (t) => {
  const good = await list({ number: 3n })
  const torn = Buffer.from(good)
  torn[torn.length - 1] = (torn.at(-1) ?? 0) ^ 1
  const other = Buffer.from(await (await fetch(`${service.publicUrl}/crl/default/0.crl`)).arrayBuffer())
  for (const [what, der, reason] of [
    [
      'a number that does not grow',
      await list({ number: 2n, revoked: [], thisUpdate: new Date(now()) }),
      /is not above 2/,
    ],
    ['older than the newest', await list({ number: 3n, thisUpdate: new Date(now() - 120_000) }), /is older/],
    [
      'over',
      await list({ number: 3n, thisUpdate: new Date(now() - 7_000), nextUpdate: new Date(now() - 6_000) }),
      /has ended/,
    ],
    ['of tomorrow', await list({ number: 3n, thisUpdate: new Date(now() + 86_400_000) }), /begins in the future/],
    ["another signer's", other, /signed by no CA above/],
    ['with a broken signature', torn, /does not verify/],
  ] as const) {
    const answer = await bring(der)
    t.match(answer, { status: 422, json: { code: 'crl.invalid', retryable: false } }, what)
    t.match(answer.json.violations[0].reason, reason, what)
  }
  for (const crl of ['nonsense!', '-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n', 'AAAA'])
    t.match(await service.request('POST', '/v1/issuers/default/crl', { body: { crl } }), {
      json: { code: 'crl.invalid' },
    })
  t.match(await bring(good, 'nobody'), { status: 404, json: { code: 'issuer.not_found' } })
  t.equal((await served()).number, 2n)
})

slowTest('readiness says when it ends, and whom it revokes', async (t) => {
  t.match(await crlCheck(), { ok: true, reason: /fresh/ })
  const soon = new Date(now() + 10 * 86_400_000)
  t.equal((await bring(await list({ number: 4n, nextUpdate: soon }))).status, 200)
  t.match(await crlCheck(), { ok: true, reason: /above default ends at .*chancery crl import/ })
  const listsAt = async (days: number): Promise<string> =>
    (await toldByDoctor(t, new Date(now() + days * 86_400_000))).find((one) => one.includes('what is revoked')) ?? ''
  t.equal(await listsAt(-10), '', 'nor does doctor say so long before')
  t.match(await listsAt(0), /above default ends at .*chancery crl import/)
  t.match(await listsAt(11), /above default ended at /)
  const issuer = (await service.request('GET', '/v1/issuers/etcd')).json.certificate
  const { serial } = parseCertificate(parsePem(issuer, 'CERTIFICATE')).facts
  const revoked = [{ serial, revokedAt: new Date(now() - 60_000), reason: 'cACompromise' as const }]
  t.same(await toldOfRevoked(t), { metric: undefined, doctor: [] })
  t.equal((await bring(await list({ number: 5n, revoked }))).status, 200)
  t.match(await crlCheck(), { ok: true, reason: /has revoked etcd: halt it/ })
  t.same(await toldOfRevoked(t), {
    metric: 'chancery_issuer_revoked{issuer="etcd"} 1',
    doctor: ['a CA above has revoked the issuer etcd, which may sign yet: chancery issuer halt etcd --reason TEXT'],
  })
})

slowTest('whom a list has revoked, no later one leaves out, but for who was on hold', async (t) => {
  const certificateOf = async (name: string) => {
    const { certificate } = (await service.request('GET', `/v1/issuers/${name}`)).json
    return parseCertificate(parsePem(certificate, 'CERTIFICATE')).facts
  }
  const [{ serial: etcd }, { serial: held }] = [await certificateOf('etcd'), await certificateOf('front-proxy')]
  const revokedAt = new Date(now() - 60_000)
  const revoked = [{ serial: etcd, revokedAt, reason: 'cACompromise' as const }]
  const hold = { serial: held, revokedAt, reason: 'certificateHold' as const }
  const gone = { serial: Buffer.alloc(16, 7), revokedAt, reason: 'superseded' as const }
  t.equal((await bring(await list({ number: 6n, revoked: [...revoked, hold, gone] }))).status, 200)
  const left = await bring(await list({ number: 7n }))
  t.match(left, { status: 422, json: { code: 'crl.invalid' } })
  const hex = etcd.toString('hex')
  t.equal(
    left.json.violations[0].reason,
    `it leaves out ${hex}, which list 6 has revoked for good: the ceremony must name that list as its previous one`,
  )
  t.match(await crlCheck(), { reason: /has revoked .*etcd/ }, 'nor is it taken for valid again')
  t.equal((await bring(await list({ number: 7n, revoked }))).status, 200, 'a hold ends, and nobody here has the third')
  t.match(await crlCheck(), { reason: /has revoked etcd: halt it/ })
})

slowTest(
  'an issuer that a CA above has revoked is no anchor of its authority any more, and never active again',
  async (t) => {
    const bundle = (anchors: string) =>
      service.request('GET', `/v1/authorities/etcd/bundle?anchors=${anchors}`, {
        headers: { accept: 'application/json' },
      })
    const move = (name: string, made: string) =>
      service.request('POST', `/v1/issuers/${name}/moves`, { body: { move: made, reason: 'its key was found' } })
    const stage = async (name: string) => {
      const ask = { name, authority: 'etcd', subject: named(name) }
      const asked = await service.request('POST', '/v1/issuer-requests', { body: ask })
      const other = openTestRoot()
      const chain = other.certify(asked.json.csr) + other.pem
      t.equal((await service.request('PUT', `/v1/issuers/${name}`, { body: { chain } })).status, 201)
    }
    await stage('etcd-1')
    t.equal((await move('etcd-1', 'discard')).status, 200, 'one that has retired is none that is left')
    t.match(await bundle('issuers'), {
      status: 503,
      json: { code: 'issuer.none_active', detail: /revoked every issuer/ },
    })
    t.match(await bundle('roots'), { status: 200, json: { items: [{ issuers: ['etcd'] }] } })

    await stage('etcd-2')
    const { items } = (await bundle('issuers')).json
    t.same(
      items.map(({ issuers }: { issuers: readonly string[] }) => issuers),
      [['etcd-2']],
    )

    t.equal((await move('etcd-2', 'activate')).status, 200)
    t.match(await move('etcd', 'activate'), { status: 409, json: { violations: [{ check: 'issuer.revoked' }] } })
    t.equal((await move('etcd', 'halt')).status, 200)
    t.match(await crlCheck(), { ok: true, reason: /are published and fresh/ }, 'nobody is told to halt it again')
    t.same(await toldOfRevoked(t), { metric: undefined, doctor: [] })
  },
)

t.test('of two lists whose URLs differ by their hosts each is told under its own', async (t) => {
  const der = await list()
  const update = new Date(now())
  const linkOf = (name: string): Link =>
    ({
      issuer: name,
      subject: { crlUrls: [`http://${name}.example/root.crl`] },
      signer: { spki: Buffer.from(name) },
    }) as unknown as Link
  const signerOf = (name: string): string => hash('sha256', Buffer.from(name))
  const listOf = (name: string, index: number) => {
    return { signer: signerOf(name), number: 1n, thisUpdate: update, nextUpdate: update, der, index }
  }
  const store = { newest: async () => ['a', 'b'].map(listOf) } as unknown as CrlImportsDeps['store']
  const links = () => ['a', 'b', 'c'].map(linkOf)
  const imports = openCrlImports({ store, links, basePath: '/', clock: () => update })
  await imports.refresh()
  const told = (host?: string) => imports.find('/root.crl', host)?.signer
  t.equal(told('a.example'), signerOf('a'))
  t.equal(told('B.example'), signerOf('b'))
  t.equal(told('c.example'), undefined, 'there is none, and nobody is told that of another')
  t.equal(told('10.0.0.7:8080'), signerOf('a'))
  t.equal(told(), signerOf('a'))
  t.equal(imports.find('/other.crl', 'a.example'), undefined)
})

t.test('nobody waits for another list of a root below which nothing is valid for longer', async (t) => {
  const der = await list()
  const days = (count: number): Date => new Date(count * 86_400_000)
  const linkOf = (name: string, ends: number): Link =>
    ({
      issuer: name,
      subject: { crlUrls: [`http://${name}.example/root.crl`], notAfter: days(ends) },
      signer: { spki: Buffer.from(name) },
    }) as unknown as Link
  const signerOf = (name: string): string => hash('sha256', Buffer.from(name))
  const listed = ['gone', 'old', 'last', 'new'].map((name, i) => ({
    signer: signerOf(name),
    number: 1n,
    thisUpdate: days(0),
    nextUpdate: days(100),
    der,
    index: i,
  }))
  const store = { newest: async () => listed } as unknown as CrlImportsDeps['store']
  // Whose certificate names no list: nobody would look for one.
  const silent = linkOf('silent', 3_000)
  let today = 95
  const imports = openCrlImports({
    store,
    links: () => [
      linkOf('old', 90),
      linkOf('last', 100),
      linkOf('new', 3_000),
      linkOf('none', 94),
      linkOf('bare', 3_000),
      { ...silent, subject: { ...silent.subject, crlUrls: [] } },
    ],
    basePath: '/',
    clock: () => days(today),
  })
  await imports.refresh()
  const told = () => ({
    ending: imports.ending(14 * 86_400_000).map(({ issuer }) => issuer),
    awaited: imports.awaited().map(({ signer }) => signer),
  })
  const waiting = { ending: ['new', 'bare'], awaited: [signerOf('new')] }
  t.same(told(), waiting)
  today = 101
  t.same(told(), waiting, 'nor once they are out of date')
  today = 50
  t.same(told(), { ending: ['none', 'bare'], awaited: [signerOf('new')] })
})

const recorded = (der: Buffer) => {
  const listed = { signer: 'ab'.repeat(32), number: 1n, thisUpdate: new Date(), nextUpdate: new Date(), index: 7 }
  const store = { newest: async () => [{ ...listed, der }] } as unknown as CrlImportsDeps['store']
  return openCrlImports({ store, links: () => [], basePath: '/', clock: () => new Date() })
}

t.test('one that is damaged on record is named, with what to do', async (t) => {
  const damaged = recorded(Buffer.from('3000', 'hex')).refresh()
  await t.rejects(damaged, { message: /that entry 7 of the roll brought, .* \(imported_crls\): restore / })
})

t.test('one on record that is refused nowadays keeps nobody from starting', async (t) => {
  const { identifier } = signatureAlgorithm('ecdsa-sha256')
  const times = [tlv(0x17, Buffer.from('261120080000Z')), tlv(0x17, Buffer.from('261220080000Z'))]
  const aki = extension('2.5.29.35', seq(tlv(0x80, Buffer.alloc(20))))
  const delta = [aki, extension('2.5.29.20', integer(7)), extension('2.5.29.27', integer(6))]
  const tbs = seq(integer(1), identifier, seq(), ...times, tlv(0xa0, seq(...delta)))
  const der = seq(tbs, identifier, bits(Buffer.from([0])))
  await recorded(der).refresh()
  t.match((await bring(der)).json, { code: 'crl.invalid', detail: /it is a delta list/ })
})
