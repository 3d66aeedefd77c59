/** A service that no issuer can sign for any more is still one that the command line reaches: it has to bring the next. */
import { existsSync } from 'node:fs'
import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { unwise } from '../../src/cli/preflight.ts'
import { serve } from '../../src/cli/serve.ts'
import { openDatabase } from '../../src/db/database.ts'
import { isProblem } from '../../src/errors.ts'
import { SigningFault } from '../../src/keys/signing-key.ts'
import { exitCodes } from '../../src/lib/failure.ts'
import { parsePublicKey } from '../../src/x509/keys.ts'
import { named, oddRoot, openTestRoot, span } from '../helpers/ceremony.ts'
import { bare } from '../helpers/environment.ts'
import { quiet } from '../helpers/log.ts'
import { chanceryFor, runChancery } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { tamper } from '../helpers/tamper.ts'

slowTest('a stand-in that there was no place for is written as soon as there is', async (t) => {
  const before = await openTestService(t)
  await chanceryFor(before)(['issuer', 'halt', 'default', '--reason', 'compromised'])
  const standIn = join(before.config.dataDir, 'stand-in.pem')
  await mkdir(standIn)
  const told: unknown[] = []
  const tell = ({ event, err }: { readonly event?: string; readonly err?: unknown }): void => {
    if (!isLate(err)) told.push(event)
  }
  // The one before still writes its anchor: another instance has its own.
  const { roll } = before.config
  const anchor = join(before.config.dataDir, 'other-anchor')
  await copyFile(roll.anchor as string, anchor)
  const config = { ...before.config, roll: { ...roll, anchor } }
  const { addresses, close } = await serve(config, { ...quiet, warn: tell, error: tell })
  t.teardown(close)
  const chancery = chanceryFor({ config, url: addresses.api })
  const outside = await chancery(['issuer', 'list'])
  t.equal(outside.code, exitCodes.usage, outside.err)
  await sleep(4_500)
  t.same(told, ['own-certificate.missing', 'anchor.unwritten'], 'it is told of once, and not with each try')
  await rm(standIn, { recursive: true })
  while (!existsSync(standIn)) await sleep(50)
  t.match(await chancery(['issuer', 'list']), { code: 0, out: /^default .* crl-only /m, err: /^$/ })
})

/** What a busy machine may have to tell as well: of lists that come too late, and of records and keys that do not answer in time. */
const isLate = (err: unknown): boolean =>
  (err instanceof SigningFault && err.when === 'late') ||
  (isProblem(err) && ['db.unavailable', 'key.unavailable'].includes(err.code)) ||
  (err instanceof Error && err.message.startsWith('another instance has recorded lists'))

slowTest(
  'an issuer that may not certify the names of the service is told of, by its log and by the doctor',
  async (t) => {
    const before = await openTestService(t)
    const chancery = chanceryFor(before)
    await chancery(['issuer', 'halt', 'default', '--reason', 'compromised'])
    const told: unknown[] = []
    const warn = ({ event, code, violations }: Readonly<Record<string, unknown>>): void => {
      if (event === 'own-certificate.missing') told.push({ code, violations })
    }
    const { addresses, close } = await serve(before.config, { ...quiet, warn })
    t.teardown(close)
    t.same(told, [{ code: 'issuer.none_active', violations: [] }])

    const root = openTestRoot()
    const asked = { name: 'narrow', authority: 'default', subject: named('Narrow') }
    const { csr } = (await before.request('POST', '/v1/issuer-requests', { body: asked })).json
    const nameConstraints = { permitted: [{ kind: 'dns', value: 'inside.example.com' }], excluded: [] } as const
    const body = { chain: root.certify(csr, { nameConstraints }) + root.pem }
    t.equal((await before.request('PUT', '/v1/issuers/narrow', { body })).status, 201)
    t.match(await chanceryFor({ config: before.config, url: addresses.api })(['issuer', 'activate', 'narrow']), {
      code: 0,
    })
    while (told.length === 1) await sleep(50)
    const refused = { check: 'issuer.nameConstraints', field: '/names', value: 'localhost' }
    t.match(told, [{}, { code: 'san.forbidden', violations: [refused] }])
    const records = {
      CHANCERY_DATA: before.config.dataDir,
      CHANCERY_PUBLIC_URL: 'http://pki.test',
      CHANCERY_DATABASE_URL: before.database.servingUrl,
      CHANCERY_MIGRATION_URL: before.database.ownerUrl,
    }
    t.match(
      (await runChancery(['doctor'], { env: { ...bare, ...records } })).out,
      / - The name constraints of the issuer narrow refuse localhost of CHANCERY_NAMES, so that the API is served under a stand-in: /,
    )
  },
)

slowTest(
  'constraints on one of its ways up, or of an issuer that signs for other keys, are nothing to tell',
  async (t) => {
    const service = await openTestService(t, { CHANCERY_STAGING_TIME: '0s' })
    const db = openDatabase({ url: service.database.servingUrl, max: 2, log: quiet, applicationName: 'test' })
    t.teardown(() => db.close())
    const told = async (): Promise<readonly string[]> =>
      (await unwise(service.config, db, { open: () => Promise.reject(new Error('away')) }, new Date())).filter((one) =>
        one.startsWith('the name constraints'),
      )
    const nameConstraints = { permitted: [{ kind: 'dns', value: 'inside.example.com' }], excluded: [] } as const
    const [old, next] = [openTestRoot('Old'), openTestRoot('Next')]
    const key = parsePublicKey(next.key.spki)
    const bring = async (name: string, algorithm: string, chainOf: (csr: string) => string): Promise<string> => {
      const body = { name, authority: 'default', algorithm, subject: named(name) }
      const { csr } = (await service.request('POST', '/v1/issuer-requests', { body })).json
      const chain = chainOf(csr)
      t.equal((await service.request('PUT', `/v1/issuers/${name}`, { body: { chain } })).status, 201)
      const move = { body: { move: 'activate' } }
      t.equal((await service.request('POST', `/v1/issuers/${name}/moves`, move)).status, 200)
      return chain
    }
    const crossOf = (csr: string): string =>
      old.certify(csr, { subject: named('Next'), key, pathLength: 1, nameConstraints, ...span(900) })
    const through = await bring('crossed', 'ec-p256', (csr) => next.certify(csr) + crossOf(csr) + old.pem)
    t.match(await told(), [/^the name constraints of the issuer crossed refuse localhost of CHANCERY_NAMES, /])

    const chains = [through, through.slice(0, through.indexOf('-----BEGIN', 1)) + next.pem]
    t.equal((await service.request('PUT', '/v1/issuers/crossed/chains', { body: { chains } })).status, 200)
    t.same(await told(), [])
    await bring('narrow', 'ec-p384', (csr) => old.certify(csr, { nameConstraints }) + old.pem)
    t.same(await told(), [])

    const ways = 'update issuer_chains set chain = array[$1::bytea] where place = 1'
    await tamper(service.database, [ways, [oddRoot('Next', next.key.spki)]])
    t.same(await told(), [], 'below a root that is taken no more, and has been')
  },
)

t.test('after the only issuer is halted and the service started again, it is reached on its stand-in', async (t) => {
  const before = await openTestService(t)
  const halted = await chanceryFor(before)(['issuer', 'halt', 'default', '--reason', 'compromised'])
  t.equal(halted.code, 0, halted.err)
  const service = await openTestService(t, {}, before)
  const chancery = chanceryFor(service)
  const listed = await chancery(['issuer', 'list'])
  t.match(listed, { code: 0, out: /^default .* crl-only /m, err: /^$/ })

  const { dataDir } = service.config
  const alone = await chancery(['issuer', 'list', '--ca', join(dataDir, 'root.pem')])
  t.equal(alone.code, exitCodes.usage, 'whoever names the root means the root')
  t.match(alone.err, /DEPTH_ZERO_SELF_SIGNED_CERT/)

  const folder = await mkdtemp(join(tmpdir(), 'chancery-stand-in-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  for (const name of ['root.pem', 'admin.token']) await copyFile(join(dataDir, name), join(folder, name))
  await writeFile(join(folder, 'stand-in.pem'), 'broken')
  const kept = await chanceryFor(before)(['issuer', 'list'], { CHANCERY_DATA: folder })
  t.match(kept, { code: 0, err: /^$/ }, 'and a stand-in that is none takes no root away')
})
