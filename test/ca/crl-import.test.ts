/** Lists of CAs above, one by one: which are taken, which follow another, and where each is found. No records are needed. */
import { generateKeyPairSync, hash, sign } from 'node:crypto'

import t from 'tap'

import {
  type CrlImportsDeps,
  type ImportedCrl,
  type Link,
  openCrlImports,
  revokedBy,
} from '../../src/ca/revocation/crl-import.ts'
import type { Problem } from '../../src/errors.ts'
import { type SignatureAlgorithm, signatureAlgorithm } from '../../src/x509/algorithms.ts'
import type { TbsFacts } from '../../src/x509/certificate.ts'
import { type CrlInput, encodeCrl, encodeCrlTbs, encodeRevoked } from '../../src/x509/crl.ts'
import { encodeSubject } from '../../src/x509/subject.ts'
import { memoryKey, named } from '../helpers/ceremony.ts'

const key = memoryKey()
const now = new Date('2026-11-28T12:00:00Z')
const after = (seconds: number): Date => new Date(now.getTime() + 1_000 * seconds)
const root: TbsFacts = {
  subjectDer: encodeSubject(named('Root')),
  keyIdentifier: Buffer.alloc(20, 1),
  keyUsage: ['keyCertSign', 'cRLSign'],
  spki: key.spki,
} as unknown as TbsFacts
const url = 'http://pki.example/pki/root.crl'
const serialOf = (n: number): Buffer => Buffer.alloc(16, n)
const linkOf = (n: number, more: Partial<Link> = {}, subject: Partial<TbsFacts> = {}): Link => ({
  issuer: `issuer-${n}`,
  way: 0,
  subject: { serial: serialOf(n), crlUrls: [url], notAfter: after(1_000), ...subject } as TbsFacts,
  signer: root,
  ...more,
})

const openPssKey = (): typeof key => {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const algorithm = signatureAlgorithm('rsa-pss-sha256')
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  const signNow = (message: Buffer): Buffer =>
    sign(algorithm.hash, message, { key: privateKey, ...algorithm.signOptions })
  return { ...key, algorithm, spki, signNow }
}

type Asked = Partial<CrlInput> & {
  readonly by?: typeof key
  readonly outer?: SignatureAlgorithm
  readonly revokes?: readonly number[]
}

const listOf = ({ by = key, revokes = [], ...more }: Asked = {}): Buffer => {
  const revokedAt = after(-60)
  const tbs = encodeCrlTbs({
    issuer: root.subjectDer,
    signature: key.algorithm,
    authorityKeyIdentifier: root.keyIdentifier as Buffer,
    number: 1n,
    thisUpdate: now,
    nextUpdate: after(100),
    revoked: [encodeRevoked(revokes.map((n) => ({ serial: serialOf(n), revokedAt })))],
    ...more,
  })
  return encodeCrl(tbs, more.signature ?? key.algorithm, by.signNow(tbs))
}

/** The newest of each signer, as the records keep them. */
const openStore = (): CrlImportsDeps['store'] => {
  const lists: ImportedCrl[] = []
  return {
    newest: async () => lists.slice(-1),
    add: async (list, assertFollows) => {
      const newest = lists.at(-1)
      if (!assertFollows(newest)) return newest as ImportedCrl
      const added = { ...list, index: lists.length }
      lists.push(added)
      return added
    },
  }
}

const open = (links: readonly Link[] = [linkOf(1)], basePath = '/') =>
  openCrlImports({ store: openStore(), links: () => links, basePath, clock: () => now })

const reasonsOf = (adding: Promise<unknown>): Promise<readonly string[]> =>
  adding.then(
    () => [],
    ({ options }: Problem) => (options.violations ?? []).map(({ reason }) => reason),
  )

t.test('a list is that of the CA above, for what is below it, and of now', async (t) => {
  const of = (signer: Partial<TbsFacts>): readonly Link[] => [linkOf(1, { signer: { ...root, ...signer } })]
  const unsigned = 'its signature does not verify'
  const nobody = 'was signed by no CA above this issuer'
  const pss = openPssKey()
  const elsewhere = 'its issuing distribution point is not that of the certificate below its signer'
  for (const [what, asked, reasons, links] of [
    ['as it should be', {}, []],
    ['of its URL', { distributionPoint: { url, only: 'ca' } }, []],
    ['of CAs', { distributionPoint: { only: 'ca' } }, []],
    ['of another URL', { distributionPoint: { url: `${url}2` } }, [elsewhere]],
    ['of users', { distributionPoint: { url, only: 'user' } }, [elsewhere]],
    ['as far as clocks may differ', { thisUpdate: after(300), nextUpdate: after(301) }, []],
    [
      'a second further',
      { thisUpdate: after(301), nextUpdate: after(302) },
      ['it begins in the future, at 2026-11-28T12:05:01.000Z'],
    ],
    ['of before', { thisUpdate: after(-2), nextUpdate: now }, ['it has ended at 2026-11-28T12:00:00.000Z']],
    ['of before, by a second', { thisUpdate: after(-2), nextUpdate: after(1) }, []],
    ['of another name', { issuer: encodeSubject(named('Other')) }, [nobody]],
    ['of another key', { authorityKeyIdentifier: Buffer.alloc(20, 2) }, [nobody]],
    ['of who does not tell its key', {}, [nobody], of({ keyIdentifier: undefined as unknown as Buffer })],
    ['signed by another key', { by: memoryKey() }, [unsigned]],
    ['of an algorithm that the key does not have', { signature: signatureAlgorithm('ed25519') }, [unsigned]],
    ['of a key that nobody can read', {}, [unsigned], of({ spki: Buffer.from('3000', 'hex') })],
    ['signed by RSA-PSS', { by: pss, signature: pss.algorithm }, [], of({ spki: pss.spki })],
    ['of who signs no lists', {}, ["its signer's key usage has no cRLSign"], of({ keyUsage: ['keyCertSign'] })],
    ['of who signs what it likes', {}, ["its signer's key usage has no cRLSign"], of({ keyUsage: undefined as never })],
    ['of nothing that fits', { by: memoryKey(), distributionPoint: { only: 'user' } }, [unsigned, elsewhere]],
  ] satisfies [string, Asked, readonly string[], (readonly Link[])?][])
    t.same(await reasonsOf(open(links).add('issuer-1', listOf(asked), 'admin')), reasons, what)
  await t.rejects(open().add('issuer-2', listOf(), 'admin'), { code: 'issuer.not_found' })
})

t.test('a list follows the newest one, and leaves nobody out who is still valid', async (t) => {
  const links = [linkOf(1), linkOf(2), linkOf(3, {}, { notAfter: after(50) }), linkOf(4, {}, { notAfter: after(51) })]
  // By its other way the first issuer has the same certificate; and another CA has given a serial that this one lists.
  const elsewhere = linkOf(9, { signer: { ...root, spki: memoryKey().spki } })
  const imports = open([...links, linkOf(1, { way: 1 }), elsewhere])
  const add = (asked: Asked): Promise<readonly string[]> => reasonsOf(imports.add('issuer-1', listOf(asked), 'admin'))
  const first = listOf({ number: 5n, revokes: [1, 3, 4, 9] })
  t.same(await reasonsOf(imports.add('issuer-1', first, 'admin')), [])
  t.match(await imports.add('issuer-2', first, 'admin'), { number: 5n, index: 0 }, 'once more changes nothing')
  t.same(await add({ number: 5n, revokes: [1, 2, 3, 4] }), ['its number 5 is not above 5, that of the newest one'])
  t.same(await add({ number: 6n, thisUpdate: after(-1), revokes: [1, 3, 4] }), [
    'it is older than the newest one, of 2026-11-28T12:00:00.000Z',
  ])
  const left = (...serials: readonly number[]): readonly string[] => [
    `it leaves out ${serials.map((n) => serialOf(n).toString('hex')).join(', ')}, which list 5 has revoked for good: the ceremony must name that list as its previous one`,
  ]
  t.same(await add({ number: 6n, revokes: [2] }), left(1, 3, 4))
  t.same(await add({ number: 6n, thisUpdate: after(51), revokes: [] }), left(1, 4), 'who has expired may go')
  t.same(await add({ number: 6n, revokes: [1, 3] }), left(4))
  t.same(imports.revoked(), ['issuer-1', 'issuer-3', 'issuer-4'], 'nothing has come of those')
  t.same(await add({ number: 6n, revokes: [1, 2, 3, 4] }), [], 'of the same second as the newest')
  t.same(imports.revoked(), ['issuer-1', 'issuer-2', 'issuer-3', 'issuer-4'])
})

t.test('who is revoked on one way only is not cut off, in service and on record', async (t) => {
  const other = { ...root, spki: memoryKey().spki }
  const links = [
    ...[linkOf(1), linkOf(1, { way: 1, signer: other })],
    ...[linkOf(2), linkOf(2, { way: 1 }, { serial: serialOf(3) })],
    ...[linkOf(4), linkOf(5, { issuer: 'issuer-4' }, { serial: serialOf(8) })],
  ]
  const imports = open(links)
  const added = await imports.add('issuer-1', listOf({ revokes: [1, 2, 3, 4] }), 'admin')
  t.same(imports.revoked(), ['issuer-1', 'issuer-2', 'issuer-4'])
  t.same(imports.revokedOnEachWay(), ['issuer-2', 'issuer-4'])
  t.same(revokedBy([added], links), ['issuer-2', 'issuer-4'])
  t.same(revokedBy([], links), [])
})

t.test('a list is found by the path of its URL, also behind a proxy that takes some of it away', async (t) => {
  const signer = hash('sha256', key.spki)
  for (const basePath of ['/pki', '/pki/']) {
    const imports = open([linkOf(1)], basePath)
    t.equal(imports.find('/root.crl'), undefined, 'none has come')
    await imports.add('issuer-1', listOf(), 'admin')
    for (const path of ['/root.crl', '/pki/root.crl']) t.equal(imports.find(path)?.signer, signer, path)
    for (const path of ['/other.crl', '/pki', '/', '']) t.equal(imports.find(path), undefined, path)
  }
})

t.test('an older list that is read late takes the place of none', async (t) => {
  const store = openStore()
  const imports = openCrlImports({ store, links: () => [linkOf(1)], basePath: '/', clock: () => now })
  const older = await imports.add('issuer-1', listOf(), 'admin')
  await imports.add('issuer-1', listOf({ number: 2n, revokes: [1] }), 'admin')
  const late = openCrlImports({
    store: { ...store, newest: async () => [...(await store.newest()), older] },
    ...{ links: () => [linkOf(1)], basePath: '/', clock: () => now },
  })
  await late.refresh()
  t.same([imports.revoked(), late.revoked()], [['issuer-1'], ['issuer-1']])
})
