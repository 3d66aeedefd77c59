/** How an instance follows the records, whatever the keys of new issuers do. */
import { randomBytes } from 'node:crypto'

import t from 'tap'

import { signIntermediate, signRoot } from '../../src/ca/issuers/ceremony.ts'
import type { IssuerRow } from '../../src/ca/issuers/issuer.ts'
import { openIssuers } from '../../src/ca/issuers/issuers.ts'
import type { IssuerState } from '../../src/ca/records.ts'
import type { SigningKey } from '../../src/keys/signing-key.ts'
import { parseCertificate } from '../../src/x509/certificate.ts'
import { parsePem } from '../../src/x509/pem.ts'
import { memoryKey, named, oddRoot, span } from '../helpers/ceremony.ts'
import { silentMeter } from '../helpers/meter.ts'
import { assertTools, run } from '../interop/tools.ts'

await assertTools('openssl')

const serial = (): Buffer => Buffer.concat([Buffer.from([0x40]), randomBytes(15)])
const rootKey = memoryKey()
const root = await signRoot(rootKey, { subject: named('Root'), serial: serial(), ...span(1_000) })
const make = async (name: string) => {
  const key = memoryKey()
  const input = { subject: named(name), serial: serial(), spki: key.spki, ...span(500) }
  const certificate = await signIntermediate(rootKey, root, input)
  const row = (state: IssuerState): IssuerRow => ({
    name,
    authority: 'default',
    state,
    since: new Date(),
    certificate,
    chain: [root],
    keyUri: `file:${name}`,
    publicUrl: 'http://pki.test',
    shards: 1,
  })
  return { key, row }
}
const [one, two] = [await make('one'), await make('two')]

/** Records that change, with an issuer `two` whose key is opened when the test says so. */
const open = async (
  loading: () => Promise<void> = async () => {},
  unusable: (name: string, error: unknown) => void = (_, error) => t.fail(String(error)),
) => {
  const key = Promise.withResolvers<SigningKey>()
  const records = { rows: [one.row('active')], version: 1 }
  const issuers = await openIssuers({
    load: async () => {
      const { rows } = records
      await loading()
      return rows
    },
    version: async () => String(records.version),
    openKey: async (uri) => (uri === 'file:one' ? one.key : await key.promise),
    meter: silentMeter,
    deadlineMs: 60_000,
    unusable,
  })
  const change = (...rows: readonly IssuerRow[]): void => {
    records.rows = [...rows]
    records.version += 1
  }
  const signer = (): string => {
    try {
      return issuers.active('default', 'ec-p256').name
    } catch (error) {
      return (error as { code: string }).code
    }
  }
  return { issuers, change, signer, key }
}

t.test('a halt is followed at once while the key of a new issuer is still being opened', async (t) => {
  const { issuers, change, signer, key } = await open()
  change(one.row('active'), two.row('staged'))
  await issuers.refresh()
  t.equal(signer(), 'one')
  change(one.row('crl-only'), two.row('staged'))
  await issuers.refresh()
  t.equal(signer(), 'issuer.none_active')
  change(one.row('crl-only'), two.row('active'))
  await issuers.refresh()
  t.equal(signer(), 'two')
  const { opening } = issuers.byName('two')
  t.ok(opening, 'who needs it can wait')
  t.throws(() => issuers.byName('two').assertAvailable(), { code: 'key.unavailable' })
  key.resolve(two.key)
  await opening
  t.equal(issuers.byName('two').opening, undefined)
  issuers.byName('two').assertAvailable()
})

t.test('the key of one that retires is closed, once, and of no other', async (t) => {
  const { issuers, change, key } = await open()
  const closed: string[] = []
  const watched = ({ key: of }: typeof two, name: string) => ({ ...of, close: async () => void closed.push(name) })
  key.resolve(watched(two, 'two'))
  for (const states of [
    ['active', 'crl-only'],
    ['active', 'retired'],
    ['retiring', 'retired'],
  ] as const) {
    change(one.row(states[0]), two.row(states[1]))
    await issuers.refresh()
    await issuers.byName('two').opening
  }
  t.same(closed, ['two'])
  t.same(
    issuers.all().map(({ issuer }) => issuer.name),
    ['one'],
  )
})

t.test('an issuer below a root that is taken no more, and has been, goes on', async (t) => {
  const { issuers, change, signer, key } = await open()
  const old = oddRoot('Root', rootKey.spki)
  t.throws(() => parseCertificate(old), { message: /the two signature algorithms differ/ })
  change(one.row('crl-only'), { ...two.row('active'), chain: [old] })
  await issuers.refresh()
  t.equal(signer(), 'two', 'OpenSSL looks at no signature of a root')
  key.resolve(two.key)
})

t.test('one whose certificate is no issuer’s is told of once, and the others go on', async (t) => {
  const told: string[] = []
  const { issuers, change, signer, key } = await open(
    async () => {},
    (name, error) => told.push(`${name}: ${error}`),
  )
  const made = [
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-keyout',
    '/dev/null',
  ]
  const certificateWith = async (...extensions: readonly string[]): Promise<Buffer> => {
    const more = ['-subj', '/CN=two', ...extensions.flatMap((extension) => ['-addext', extension])]
    return parsePem((await run('openssl', [...made, ...more])).stdout, 'CERTIFICATE')
  }
  const leaf = await certificateWith('basicConstraints=critical,CA:FALSE')
  const nameless = await certificateWith('subjectKeyIdentifier=none', 'authorityKeyIdentifier=none')
  for (const [name, certificate] of Object.entries({ leaf, nameless })) {
    change({ ...two.row('active'), name, certificate }, one.row('active'))
    await issuers.refresh()
    change({ ...two.row('active'), name, certificate }, one.row('active'))
    await issuers.refresh()
    t.equal(signer(), 'one')
    t.throws(() => issuers.byName(name), { code: 'issuer.not_found' })
  }
  t.same(told, [
    'leaf: Error: The certificate of issuer leaf is not a CA certificate.',
    'nameless: Error: The certificate of issuer nameless has no subject key identifier.',
  ])
  key.resolve(two.key)
})

t.test('who asks during a read, and knows of a move that it has not seen, has it followed', async (t) => {
  let held: Promise<void> | undefined
  const { issuers, change, signer, key } = await open(async () => held)
  const first = Promise.withResolvers<void>()
  held = first.promise
  change(one.row('active'), two.row('staged'))
  const before = issuers.refresh()
  await new Promise((resolve) => setImmediate(resolve))
  held = undefined
  change(one.row('crl-only'), two.row('staged'))
  const after = [issuers.refresh(), issuers.refresh()]
  first.resolve()
  await before
  t.equal(signer(), 'one', 'that read had begun before the move')
  await Promise.all(after)
  t.equal(signer(), 'issuer.none_active')
  key.resolve(two.key)
})
