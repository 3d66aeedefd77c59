import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t, { type Test } from 'tap'

import { runAdoptDatabase, runSucceed } from '../../src/cli/log-succeed.ts'
import { type Config, loadConfig } from '../../src/config/config.ts'
import { exitCodes } from '../../src/lib/failure.ts'
import { rootKey } from '../../src/server/keys.ts'
import { openAnchorFile, readAnchorFile } from '../../src/server/pinned-checkpoint.ts'
import { openStores } from '../../src/server/stores.ts'
import { openCheckpoint } from '../../src/tlog/checkpoint.ts'
import { parseVerifierKey } from '../../src/tlog/note.ts'
import { parseCrl } from '../../src/x509/crl.ts'
import { type Backup, takeBackup } from '../helpers/backup.ts'
import { bare } from '../helpers/environment.ts'
import { openFullDisk } from '../helpers/full-disk.ts'
import { quiet } from '../helpers/log.ts'
import { openReplica } from '../helpers/replica.ts'
import { runChancery } from '../helpers/run.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor } from '../http/people.ts'
import { sha256, verifyEd25519 } from '../tlog/hashing.ts'

t.setTimeout(300_000)
const folder = await mkdtemp(join(tmpdir(), 'chancery-succeed-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))

// A database at two times: the backup, and the end, which the anchor has seen.
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
const restored = await readFile(anchor)
const restoredSize = (await readAnchorFile(anchor))?.size as number
await serving(t, (service) => issue(service, 3))
const end = (await readAnchorFile(anchor))?.size as number
const seen = await readFile(anchor)

/** The backup again, and the anchor as the end or the backup has left it. */
const restore = async (upTo: 'end' | 'backup' | 'nothing'): Promise<void> => {
  await backup.restore()
  await rm(anchor, { force: true })
  if (upTo !== 'nothing') await writeFile(anchor, upTo === 'end' ? seen : restored)
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

slowTest('while an instance has the records open nothing is given up', async (t) => {
  await restore('nothing')
  await serving(t, async () => {
    const given = runSucceed(config, quiet, 'localhost/roll-2', async () => true)
    await t.rejects(given, { kind: 'conflict', message: /stop every instance/ })
  })
})

slowTest('by the very command: the sentences, the exit codes', async (t) => {
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
  t.match(await run('succeed', '--origin', 'new.example/roll'), {
    code: exitCodes.usage,
    err: /add --confirm new\.example/,
  })
  t.match(await run('adopt-database'), { code: exitCodes.usage, err: /are missing/ })
})

slowTest('what is lost for good is given up: the roll goes on under a new origin that names the old one', async (t) => {
  await restore('end')
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
  t.equal(await sizeNow(), restoredSize, 'unless it is confirmed, and can be, nothing changes')
  const told = await runSucceed(config, quiet, origin, async (what) => {
    t.match(what, { from: { origin: 'localhost/roll', size: end }, size: restoredSize, isOnRecord: false })
    return true
  })
  t.match(told, /^The roll goes on as localhost\/roll-2\. .*anchor\.\d+:/)
  t.match(await readAnchorFile(anchor), { origin, size: restoredSize + 1 })
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

slowTest(
  'a lost key of the roll has no successor while nothing else is lost, and one where entries are given up',
  async (t) => {
    const yes = async () => true
    const origin = 'localhost/roll-2'
    const file = join(config.dataDir, 'roll/key.pem')
    const lost = await readFile(file)
    await rm(file)
    t.teardown(() => writeFile(file, lost))
    await restore('backup')
    await t.rejects(runSucceed(config, quiet, origin, yes), {
      kind: 'usage',
      message: /Nothing of localhost\/roll is lost/,
    })
    await t.rejects(readFile(file), { code: 'ENOENT' })
    await restore('end')
    await runSucceed(config, quiet, origin, yes)
    t.not((await keyOf(origin)).publicKey.toString(), (await keyOf()).publicKey.toString())
    await serving(t, async (service) => {
      t.equal((await issue(service)).length, 1)
      const { text: note } = await service.request('GET', '/roll/checkpoint')
      t.match(await openCheckpoint(note, { roll: [await keyOf(origin)] }, verifyEd25519), { origin })
    })
  },
)

/** As if they came from that one. Resolves to their head. */
const moveTo = (database: string) =>
  inStores(async ({ roll }) => {
    await roll.change(async () => ({
      events: [{ type: 'database.adopted', database, before: null, reason: null, by: 'test' }],
      result: undefined,
    }))
    return roll.head()
  })

slowTest('records on another server are adopted by a command, and not before', async (t) => {
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
