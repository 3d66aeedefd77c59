import { readFileSync, writeFileSync } from 'node:fs'
import { copyFile, cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import pg from 'pg'
import t, { type Test } from 'tap'

import { runRecover } from '../../src/cli/log-recover.ts'
import { runAdoptDatabase, runSucceed } from '../../src/cli/log-succeed.ts'
import { type Config, loadConfig } from '../../src/config/config.ts'
import { exitCodes } from '../../src/lib/failure.ts'
import { rootKey } from '../../src/server/keys.ts'
import { openAnchorFile, readAnchorFile } from '../../src/server/pinned-checkpoint.ts'
import { openStores } from '../../src/server/stores.ts'
import { openCheckpoint } from '../../src/tlog/checkpoint.ts'
import { encodeVerifierKey, parseVerifierKey } from '../../src/tlog/note.ts'
import { parseCrl } from '../../src/x509/crl.ts'
import { type Backup, takeBackup } from '../helpers/backup.ts'
import { openTestRoot } from '../helpers/ceremony.ts'
import { drill } from '../helpers/drill.ts'
import { bare } from '../helpers/environment.ts'
import { exportRoll } from '../helpers/exported.ts'
import { openFullDisk } from '../helpers/full-disk.ts'
import { quiet } from '../helpers/log.ts'
import { openReplica } from '../helpers/replica.ts'
import { runChancery } from '../helpers/run.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { csrFor } from '../http/people.ts'
import { sha256, verifyEd25519 } from '../tlog/hashing.ts'

t.setTimeout(300_000)
const silent = { update: () => {}, tell: () => {} }
const folder = await mkdtemp(join(tmpdir(), 'chancery-recover-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))

// A database at three times: the backup, the export, and the end, which the anchor has seen.
const replica = await openReplica(t)
const { config, database } = replica
const anchor = config.roll.anchor as string
await replica.stores.db.close()

const serving = async <T>(test: Test | typeof t, work: (service: TestService) => Promise<T>): Promise<T> => {
  const service = await openTestService(test, {}, replica)
  try {
    return await work(service)
  } finally {
    await service.close()
  }
}
const issue = async (service: TestService, count = 1): Promise<string[]> => {
  const items = Array.from({ length: count }, () => ({ csr: csrFor('web.example.com'), profile: 'server' }))
  const { json, text } = await service.request('POST', '/v1/certificates/batch', { body: { items } })
  if (!json?.items) throw new Error(text)
  return json.items.map(({ certificate }: { certificate: { serial: string } }) => certificate.serial)
}

await serving(t, (service) => issue(service, 3))
const backup: Backup = await takeBackup(t, database)
const root = openTestRoot()
const chain = join(folder, 'root.pem')
await writeFile(chain, root.pem)
const tiles = join(folder, 'tiles')

const { exported, serials, ended } = await serving(t, async (service) => {
  const subject = [{ type: 'commonName', value: 'Later Issuing' }]
  const body = { name: 'later', authority: 'later', subject, algorithm: 'ec-p256' }
  const { csr } = (await service.request('POST', '/v1/issuer-requests', { body })).json
  const imported = await service.request('PUT', '/v1/issuers/later', {
    body: { chain: `${root.certify(csr)}${root.pem}`, shards: 1 },
  })
  if (imported.status >= 300) throw new Error(imported.text)
  await service.request('POST', '/v1/issuers/later/moves', { body: { move: 'activate' } })
  await copyFile(join(config.dataDir, 'keys', 'later.pem'), join(config.dataDir, 'keys', 'elsewhere.pem'))
  const moved = await service.request('PUT', '/v1/issuers/later/key', { body: { key: 'file:keys/elsewhere.pem' } })
  if (moved.status >= 300) throw new Error(moved.text)
  const made = await issue(service, 300)
  await new Promise((resolve) => setTimeout(resolve, 1_100))
  const size = await exportRoll((path) => service.request('GET', path), tiles)
  await issue(service, 2)
  return { exported: size, serials: made, ended: 0 }
})
const end = (await readAnchorFile(anchor))?.size as number
const seen = await readFile(anchor)
t.ok(ended < exported && exported < end)

/** The backup again, and the anchor as the end has left it, or as if only the export had been seen. */
const restore = async (upTo: 'end' | 'export' | 'nothing'): Promise<void> => {
  await backup.restore()
  await rm(anchor, { force: true })
  if (upTo === 'end') return writeFile(anchor, seen)
  if (upTo === 'nothing') return
  const file = await openAnchorFile({ path: anchor })
  const note = await readFile(join(tiles, 'checkpoint'), 'utf8')
  await file.write(await openCheckpoint(note, { roll: [await keyOf()] }, verifyEd25519))
  await file.close()
}
const sizeNow = async (): Promise<number> => (await inStores(({ roll }) => roll.head())).size
const inStores = async <T>(work: (stores: Awaited<ReturnType<typeof openStores>>) => Promise<T>): Promise<T> => {
  const stores = await openStores({
    config: { ...config, roll: { ...config.roll, anchor: undefined } } as unknown as Config,
    databaseUrl: database.servingUrl,
    log: quiet,
  })
  try {
    return await work(stores)
  } finally {
    stores.policies.close()
    await stores.db.close()
  }
}
const keyOf = async (origin = 'localhost/roll') => {
  const { rows } = await inStores(({ db }) =>
    db.query<{ body: string }>({ text: `select body from entries where type = 'roll.opened' order by index` }),
  )
  const opened = rows.map(({ body }) => JSON.parse(body)).find((event) => event.origin === origin)
  return parseVerifierKey(opened.key, sha256)
}
const options = { from: tiles, profiles: [], chains: [chain], check: false }
const recover = (more: Partial<typeof options & { key: string }> = {}) =>
  runRecover(config, quiet, { ...options, ...more }, silent)

drill('what the folder has is put back, and what it has not is named', async (t) => {
  await restore('end')
  const start = await sizeNow()
  const found = await recover()
  t.match(found, { from: start, to: exported, missingUntil: end })
  t.match(found.byHand, [/^The request for the issuer later: its CSR is lost/], 'the rest is on the roll')
  t.equal(await sizeNow(), exported)
  t.match(await recover(), { from: exported, to: exported, missingUntil: end, byHand: { length: 0 } })
  await t.rejects(
    serving(t, async () => {}),
    { message: /entries? \d+ .*missing/ },
    'and it is not served',
  )
})

drill('a recovery that is cut off goes on where it was, and then everything is there', async (t) => {
  await restore('export')
  const start = await sizeNow()
  const cut = (done: number, total: number): void => {
    if (done > total / 2) throw new Error('cut off')
  }
  await t.rejects(runRecover(config, quiet, options, { update: cut, tell: () => {} }), { message: 'cut off' })
  const half = await sizeNow()
  t.ok(half > start && half < exported)
  await t.rejects(
    serving(t, async () => {}),
    { message: /missing/ },
  )
  t.match(await recover(), { from: half, to: exported })
  await serving(t, async (service) => {
    t.equal((await service.request('GET', `/v1/certificates/${serials[299]}`)).status, 200)
    const { json } = await service.request('GET', '/v1/issuers/later')
    t.match(json, { name: 'later', authority: 'later', state: 'active' }, 'an issuer that came after the backup')
    t.equal(json.shards, 1, 'with the one list that it has')
    const { json: key } = await service.request('GET', '/v1/issuers/later/key')
    t.match(key, { key: 'file:keys/elsewhere.pem' }, 'with its key where it was found to be since')
    t.equal((await service.request('GET', '/readyz')).status, 200)
    await issue(service)
  })
})

drill('a look finds what the records do not take, and leaves nothing changed', async (t) => {
  await restore('export')
  const start = await sizeNow()
  t.match(await recover({ check: true }), { from: start, to: exported })
  t.equal(await sizeNow(), start)
  const client = new pg.Client({ connectionString: database.ownerUrl })
  await client.connect()
  await client.query('alter table outcomes add constraint takes_nothing check (false) not valid')
  await client.end()
  await t.rejects(recover({ check: true }), { message: /takes_nothing/ })
  t.equal(await sizeNow(), start)
})

drill('while an instance has the records open nothing is recovered', async (t) => {
  await restore('nothing')
  await serving(t, async () => {
    await t.rejects(recover(), { kind: 'conflict', message: /stop every instance/ })
  })
})

drill('records that have gone on by themselves are another roll, and nothing is written to them', async (t) => {
  await restore('nothing')
  const start = await sizeNow()
  await serving(t, async (service) => {
    const [serial] = await issue(service, 1)
    await service.request('POST', `/v1/certificates/${serial}/revocation`, { body: { reason: 'superseded' } })
    await service.service.publishCrls()
  })
  const { size, root: before } = await inStores(({ roll }) => roll.head())
  t.equal((await readAnchorFile(anchor))?.size, size, 'a stop leaves nothing that the anchor has not seen')
  await t.rejects(recover(), {
    kind: 'usage',
    message: new RegExp(`^The records have gone on by themselves since entry ${start}:`),
  })
  const written = await readFile(anchor)
  const file = await openAnchorFile({ path: join(folder, 'right') })
  const note = await readFile(join(tiles, 'checkpoint'), 'utf8')
  const key = await keyOf()
  await file.write(await openCheckpoint(note, { roll: [key] }, verifyEd25519))
  await file.close()
  // As where the anchor was away while they went on, and is back: folder and anchor agree, so neither is called a fork.
  await copyFile(join(folder, 'right'), anchor)
  await t.rejects(recover(), { message: new RegExp(`^The records have gone on by themselves since entry ${start}:`) })
  await writeFile(anchor, written)
  await t.rejects(recover(), { message: /agrees with the records\. A checkpoint that others have kept .* says which/ })
  t.same(await inStores(({ roll }) => roll.head()).then((head) => [head.size, head.root]), [size, before])

  // As it was told to do: the anchor is of what went on, and is not to be mistaken for proof against the folder.
  await backup.restore()
  const told = await recover().catch(({ message }: Error) => message)
  t.match(
    told,
    `The ${size} entries of the folder are not those that were seen here: ${tiles} and ${anchor} are of two rolls`,
  )
  t.match(told, /If the folder: restore the backup once more, keep an anchor that is not of it elsewhere/)
  await rm(anchor)
  t.match(await recover(), { from: start, to: exported }, 'and then it is put back')
  await writeFile(anchor, written)
  const message = new RegExp(
    `does not go on from the ${size} entries of ${anchor}: these are two rolls. A checkpoint that`,
  )
  await t.rejects(recover(), { message }, 'nor where what was put back is longer')
})

drill('a folder that is not whole, not of this roll or lacks what is needed is not recovered from', async (t) => {
  await restore('export')
  const start = await sizeNow()
  const spoiled = join(folder, 'spoiled')
  const bundle = join(spoiled, 'tile', 'entries', '000')
  const cases: readonly [RegExp, () => Promise<unknown>][] = [
    [/is no folder of an exported roll/, () => rm(join(spoiled, 'checkpoint'))],
    [/tile\/entries\/000 is missing, with entries 0 and up/, () => rm(bundle)],
    [
      /^Entry \d+ of the folder cannot be read: /,
      () =>
        edit(bundle, (text) =>
          text.replace(/"certificate.issued","v":1}(?!.*"certificate.issued")/s, '"certificate.issued","v":9}'),
        ),
    ],
    [
      /not those of its checkpoint/,
      () => edit(bundle, (text) => text.replaceAll('"principal":"admin"', '"principal":"adnim"')),
    ],
    [/not as many length-prefixed|ends within entry|more in it than/, () => edit(bundle, (text) => text.slice(0, -9))],
    [
      /^The checkpoint in .* is none of this roll/,
      () => edit(join(spoiled, 'checkpoint'), (text) => text.replace(/\n(\d)/, '\n1$1')),
    ],
  ]
  for (const [message, spoil] of cases) {
    await rm(spoiled, { recursive: true, force: true })
    await cp(tiles, spoiled, { recursive: true })
    await spoil()
    await t.rejects(recover({ from: spoiled }), { message }, String(message))
  }
  await t.rejects(recover({ chains: [] }), { message: /^The issuer later was created after the backup.*--chain/ })
  const own = join(folder, 'own.key')
  await writeFile(own, `${encodeVerifierKey(await keyOf())}\n`)
  t.match(await recover({ key: own, check: true }), { from: start, to: exported }, 'a key from a file, as elsewhere')
  await t.rejects(recover({ key: join(folder, 'none.key') }), { message: /^The key .* cannot be read/ })
  t.equal(await sizeNow(), start, 'nothing was written')
})

const edit = async (path: string, change: (text: string) => string): Promise<void> => {
  const before = await readFile(path, 'latin1')
  const after = change(before)
  if (after === before) throw new Error(`${path} was not changed`)
  await writeFile(path, after, 'latin1')
}

drill('by the very command: a look, the sentences, the exit codes', async (t) => {
  await restore('end')
  const env = {
    ...bare,
    CHANCERY_DATA: config.dataDir,
    CHANCERY_DATABASE_URL: database.servingUrl,
    CHANCERY_MIGRATION_URL: database.ownerUrl,
    CHANCERY_PUBLIC_URL: 'http://pki.test',
    CHANCERY_LOG_LEVEL: 'error',
  }
  const run = (...words: readonly string[]) => runChancery(['roll', ...words], { env })
  const looked = await run('recover', '--from', tiles, '--chain', chain, '--check')
  t.match(looked.out, /^\d+ entries would be put back: the roll localhost\/roll ends at \d+\./)
  t.match(looked.out, /still missing: they were seen once/)
  t.match(looked, { code: exitCodes.refused })
  t.match(looked.err, /\d+ of \d+ \(\d+ %\)/, 'how far it has come')
  t.match(await run('succeed', '--origin', 'new.example/roll'), {
    code: exitCodes.usage,
    err: /add --confirm new\.example/,
  })
  t.match(await run('adopt-database'), { code: exitCodes.usage, err: /are missing/ })
})

drill('what is lost for good is given up: the roll goes on under a new origin that names the old one', async (t) => {
  await restore('end')
  await recover()
  const origin = 'localhost/roll-2'
  const yes = async () => true
  await t.rejects(runSucceed(config, quiet, 'Not an origin', yes), {
    kind: 'usage',
    message: /is not a host and a path/,
  })
  await t.rejects(runSucceed(config, quiet, 'localhost/roll', yes), { kind: 'usage', message: /choose another origin/ })
  await t.rejects(
    runSucceed(config, quiet, origin, async () => false),
    { kind: 'refused', message: /Nothing was changed/ },
  )
  await t.rejects(runSucceed({ ...config, roll: { ...config.roll, key: rootKey } }, quiet, origin, yes), {
    kind: 'usage',
    message: /^CHANCERY_ROLL_KEY: .* is not an Ed25519 key/,
  })
  t.equal(await sizeNow(), exported, 'unless it is confirmed, and can be, nothing changes')
  const told = await runSucceed(config, quiet, origin, async (what) => {
    t.match(what, { from: { origin: 'localhost/roll', size: end }, size: exported, isOnRecord: false })
    return true
  })
  t.match(told, /^The roll goes on as localhost\/roll-2\. .*anchor\.\d+:/)
  t.match(await readAnchorFile(anchor), { origin, size: exported + 1 })
  t.match(await readAnchorFile(`${anchor}.${end}`), { origin: 'localhost/roll', size: end }, 'the old one is evidence')
  await t.rejects(runSucceed(config, quiet, 'localhost/roll-3', yes), {
    kind: 'usage',
    message: /Nothing of localhost\/roll-2 is lost/,
  })
  await serving(t, async (service) => {
    const [serial] = await issue(service)
    t.equal((await service.request('GET', `/v1/certificates/${serial}`)).status, 200)
    const { text: note } = await service.request('GET', '/roll/checkpoint')
    t.match(await openCheckpoint(note, { roll: [await keyOf(origin)] }, verifyEd25519), { origin })
    const { json } = await service.request('GET', '/v1/events?type=roll.opened&limit=10')
    t.match(JSON.parse(json.items.at(-1).entry), { origin, succeeds: { origin: 'localhost/roll', size: end } })
    // Lists that are lost had numbers too, and some have seen them.
    await service.request('POST', `/v1/certificates/${serial}/revocation`, { body: { reason: 'superseded' } })
    await service.service.publishCrls()
    const shard = Buffer.from(serial as string, 'hex').readUInt32BE(12) % 128
    const list = await (await fetch(`${service.publicUrl}/crl/default/${shard}.crl`)).arrayBuffer()
    const text = `select max(number)::integer as number from crls where issuer = 'default' and shard = ${shard}`
    const { rows } = await inStores(({ db }) => db.query<{ number: number }>({ text }))
    t.equal(parseCrl(Buffer.from(list)).number, 2n ** 48n + BigInt(rows[0]?.number as number))
  })
  // Another replica has an anchor of its own, and its operator says the same there.
  const other = await loadConfig({
    CHANCERY_DATA: config.dataDir,
    CHANCERY_DATABASE_URL: database.servingUrl,
    CHANCERY_ROLL_ANCHOR: join(folder, 'other'),
  })
  await writeFile(join(folder, 'other'), seen)
  await t.rejects(openStores({ config: other, databaseUrl: database.servingUrl, log: quiet }), {
    message: /"chancery roll succeed" says so here too/,
  })
  const before = await sizeNow()
  await runSucceed(other, quiet, origin, async ({ isOnRecord }) => isOnRecord)
  t.match(await readAnchorFile(join(folder, 'other')), { origin, size: before })
  t.equal(await sizeNow(), before, 'the records say it once')
})

drill(
  'a lost key of the roll has no successor while nothing else is lost, and one where entries are given up',
  async (t) => {
    const yes = async () => true
    const origin = 'localhost/roll-2'
    const file = join(config.dataDir, 'roll/key.pem')
    const lost = await readFile(file)
    await rm(file)
    t.teardown(() => writeFile(file, lost))
    await restore('export')
    await recover()
    await t.rejects(runSucceed(config, quiet, origin, yes), {
      kind: 'usage',
      message: /Nothing of localhost\/roll is lost/,
    })
    await t.rejects(readFile(file), { code: 'ENOENT' })
    await restore('end')
    await recover()
    await runSucceed(config, quiet, origin, yes)
    t.not((await keyOf(origin)).publicKey.toString(), (await keyOf()).publicKey.toString())
    await serving(t, async (service) => {
      t.equal((await issue(service)).length, 1)
      const { text: note } = await service.request('GET', '/roll/checkpoint')
      t.match(await openCheckpoint(note, { roll: [await keyOf(origin)] }, verifyEd25519), { origin })
    })
  },
)

drill('a folder that changes after it was verified is not written from', async (t) => {
  await restore('export')
  const start = await sizeNow()
  const changing = join(folder, 'changing')
  await cp(tiles, changing, { recursive: true })
  const bundle = join(changing, 'tile/entries/000')
  let isVerified = false
  const progress = {
    tell: () => {},
    update: (done: number, total: number) => {
      if (isVerified || done * 2 < total) return
      isVerified = true
      // What was asked for is another digest in each: all of it can be read, and written.
      writeFileSync(bundle, readFileSync(bundle, 'latin1').replaceAll(/"request":"./g, '"request":"0'), 'latin1')
    },
  }
  const recovered = runRecover(config, quiet, { ...options, from: changing }, progress)
  await t.rejects(recovered, {
    kind: 'usage',
    message: new RegExp(`changing has changed since it was verified: of entries ${start} to 255`),
  })
  t.ok(isVerified)
  t.equal(await sizeNow(), start)
  await recover()
  t.equal(await sizeNow(), exported, 'it is put back from the folder as it was')
})

/** As if they came from that one. Resolves to their head. */
const moveTo = (database: string) =>
  inStores(async ({ roll }) => {
    await roll.change(async () => ({
      events: [{ type: 'database.adopted', v: 2, database, before: null, reason: null, by: 'test' }],
      result: undefined,
    }))
    return roll.head()
  })

drill('records on another server are adopted by a command, and not before', async (t) => {
  await restore('nothing')
  t.match(await runAdoptDatabase(config, quiet), /nothing to adopt/)
  const head = await moveTo('7000000000000000001')
  await t.rejects(
    serving(t, async () => {}),
    { message: /"chancery roll adopt-database" accepts a move/ },
  )
  await t.rejects(runAdoptDatabase(config, quiet, ' '), { kind: 'usage', message: /--reason/ })
  const file = await openAnchorFile({ path: anchor })
  await file.write({ origin: 'localhost/roll', ...head })
  await file.close()
  t.match(
    await runAdoptDatabase(config, quiet, 'moved to the new cluster'),
    /^The records are on the database server \d+ from now on, and were on 7000000000000000001\./,
  )
  await inStores(async ({ db }) => {
    const { rows } = await db.query<{ body: string }>({
      text: `select body from entries where type = 'database.adopted' order by index desc limit 1`,
    })
    t.match(JSON.parse(rows[0]?.body ?? ''), {
      v: 2,
      before: '7000000000000000001',
      reason: 'moved to the new cluster',
    })
  })
  t.equal(
    (await readAnchorFile(anchor))?.size,
    await sizeNow(),
    'and the anchor has seen it: whoever starts on the server of before is told here',
  )
  await serving(t, (service) => issue(service))
})

t.test('a move that the anchor could not be told of is told to it when the command is run again', async (t) => {
  await moveTo('7000000000000000002')
  const disk = openFullDisk()
  disk.fill(0)
  await t.rejects(runAdoptDatabase(config, quiet, 'moved again').finally(disk.free), {
    kind: 'failed',
    message: `The move is on record, but not in the anchor ${anchor}: EFBIG: file too large, write. Let it be written, and run this again.`,
  })
  t.not((await readAnchorFile(anchor))?.size, await sizeNow())
  t.match(await runAdoptDatabase(config, quiet, 'moved again'), /nothing to adopt/)
  t.equal((await readAnchorFile(anchor))?.size, await sizeNow())
})
