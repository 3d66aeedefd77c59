/** Real processes, killed and stopped under 32 clients that retry by their Idempotency-Key; `checker.ts` decides. */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

import t, { type Test } from 'tap'

import { openTestDatabase, type TestDatabase } from '../helpers/database.ts'
import { type Instance, startInstance } from '../helpers/instance.ts'
import { freePort } from '../helpers/port.ts'
import { slowTest } from '../helpers/slow.ts'
import { askSql } from '../helpers/sql.ts'
import { faultsInChain } from './chain.ts'
import { faultsInRecords } from './checker.ts'
import { type Load, openLoad, type Target } from './load.ts'
import { openPoller, type Poller } from './poller.ts'

// The place ---------------------------------------------------------------------------------------------------------------

const openPlace = async (t: Test, env: Readonly<Record<string, string>> = {}) => {
  const database = await openTestDatabase({ teardown: () => {} })
  const data = await mkdtemp(join(tmpdir(), 'chancery-crash-'))
  const ports = await Promise.all([freePort(), freePort(), freePort(), freePort()])
  const started: Instance[] = []
  const start = (i: 0 | 1): Instance => {
    const instance = startInstance({
      data,
      port: ports[i],
      publicPort: ports[i === 0 ? 2 : 3],
      servingUrl: database.servingUrl,
      ownerUrl: database.ownerUrl,
      env: { ...env, CHANCERY_ROLL_ANCHOR: join(data, `anchor-${i}`) },
    })
    started.push(instance)
    return instance
  }
  t.teardown(async () => {
    for (const instance of started) instance.signal('SIGKILL')
    await Promise.all(started.map(({ exited }) => exited))
    await database.close()
    await rm(data, { recursive: true, force: true })
  })
  const target = async (i: 0 | 1): Promise<Target> => ({
    port: ports[i],
    ca: await readFile(join(data, 'root.pem'), 'utf8'),
    token: (await readFile(join(data, 'admin.token'), 'utf8')).trim(),
  })
  /** Resolves when the reconciler has ended what was open; it runs each ten seconds and waits eleven. */
  const idle = async (): Promise<void> => {
    for (const deadline = Date.now() + 40_000; Date.now() < deadline; await pause(500)) {
      if (
        (await count(
          database,
          'select count(*)::int as n from intents i where not exists (select from outcomes o where o.serial = i.serial)',
        )) === 0
      )
        return
    }
  }
  /** The size that an instance has kept outside of the database. */
  const kept = async (i: 0 | 1): Promise<number> => {
    const text = await readFile(join(data, `anchor-${i}`), 'utf8')
    return Math.max(...[...text.matchAll(/\/roll\n(\d+)\n/g)].map(([, size]) => Number(size)))
  }
  return { start, target, database, idle, kept }
}

/** Resolves to the largest size that anybody was shown. */
const assertSound = async (
  t: Test,
  { ownerUrl }: TestDatabase,
  load: Load,
  pollers: readonly Poller[],
): Promise<number> => {
  await Promise.all(pollers.map((poller) => poller.stop()))
  t.same(load.failures, [], 'no client was told anything final but its certificate')
  t.same(await faultsInRecords(ownerUrl, load.answered), [])
  const polled = pollers.map(({ notes }) => notes)
  const { faults, checkpoints, largest } = await faultsInChain(ownerUrl, { answered: load.answered, polled })
  t.same(faults, [], 'all checkpoints are of one roll, and every proof leads to one')
  t.ok(polled.every(({ length }) => length > 10))
  t.comment(`${checkpoints} checkpoints`)
  return largest
}

const countAbandoned = (database: TestDatabase): Promise<number> =>
  count(database, `select count(*)::int as n from outcomes where kind = 'abandoned'`)

const count = async ({ ownerUrl }: TestDatabase, text: string): Promise<number> =>
  (await askSql<{ n: number }>(ownerUrl, text))[0]?.n ?? -1

const filesIn = async (folder: string): Promise<number> => (await readdir(folder, { recursive: true })).length

const clients = 32

t.setTimeout(500_000)

slowTest('twenty kill -9 under load: nothing lost, nothing doubled, nothing left open', async (t) => {
  const code = await mkdtemp(join(tmpdir(), 'chancery-code-'))
  t.teardown(() => rm(code, { recursive: true, force: true }))
  const { start, target, database, idle, kept } = await openPlace(t, { NODE_COMPILE_CACHE: code })
  let instance = start(0)
  await instance.ready()
  const load = openLoad([await target(0)], clients)
  const poller = openPoller(await target(0))
  let outages = 0
  let idleLives = 0
  for (let kill = 0; kill < 20; kill += 1) {
    // However slow the machine is, each life is long enough for each client to get its turn.
    if (!(await load.answers(2 * clients, 10_000))) idleLives += 1
    await pause(150 + Math.random() * 350)
    instance.signal('SIGKILL')
    await instance.exited
    // A signer keeps some two hundred by itself.
    if (kill === 0) t.ok((await filesIn(code)) > 1_000, 'what it had read is kept for its next life')
    const down = Date.now()
    instance = start(0)
    await instance.ready()
    outages = Math.max(outages, Date.now() - down)
  }
  await pause(500)
  await load.stop()
  await idle()
  t.comment(
    `answered ${load.answered.length}, longest outage ${outages} ms, retries ${JSON.stringify([...load.retries])}`,
  )
  const largest = await assertSound(t, database, load, [poller])
  t.ok((await kept(0)) >= largest, 'what was shown was kept elsewhere first')
  t.ok(outages < 10_000, 'ready again within seconds')
  t.equal(idleLives, 0, 'whenever it is ready it answers')
  instance.signal('SIGTERM')
  t.equal(await instance.exited, 0, 'and stops gracefully in the end')
})

t.test('two instances on one database: the same invariants, and both issue', async (t) => {
  const { start, target, database } = await openPlace(t)
  const first = start(0)
  await first.ready()
  const second = start(1)
  await second.ready()
  const load = openLoad([await target(0), await target(1)], clients)
  const pollers = [openPoller(await target(0)), openPoller(await target(1))]
  await pause(4000)
  await load.stop()
  t.comment(`answered ${load.answered.length}, retries ${JSON.stringify([...load.retries])}`)
  t.ok(load.answered.length > 100)
  await assertSound(t, database, load, pollers)
})

slowTest(
  'an instance that is stopped for longer than the reconciler waits, and then goes on, hands nothing out twice',
  async (t) => {
    const { start, target, database, idle } = await openPlace(t)
    const sleeper = start(0)
    await sleeper.ready()
    const other = start(1)
    await other.ready()
    const load = openLoad([await target(0), await target(1)], clients)
    const pollers = [openPoller(await target(0)), openPoller(await target(1))]
    // In the middle of something: between two batches there is nothing that it could hand out.
    const hasOpen = async (): Promise<boolean> =>
      (await count(
        database,
        `select count(*)::int as n from intents i where created_at < clock_timestamp() - interval '1 second'
         and not exists (select from outcomes o where o.serial = i.serial)`,
      )) > 0
    for (let tries = 0; tries < 30; tries += 1) {
      await pause(500 + Math.random() * 200)
      sleeper.signal('SIGSTOP')
      await pause(1_500)
      if (await hasOpen()) break
      sleeper.signal('SIGCONT')
    }
    // Its intents are eleven seconds old then, and the reconciler comes each ten: meanwhile a little load is enough.
    load.rest(1_000)
    for (const deadline = Date.now() + 40_000; Date.now() < deadline; await pause(250))
      if ((await countAbandoned(database)) > 0) break
    load.rest(0)
    await pause(500)
    sleeper.signal('SIGCONT')
    await pause(700)
    sleeper.signal('SIGSTOP')
    await pause(1_500)
    sleeper.signal('SIGCONT')
    await pause(1500)
    await load.stop()
    await idle()
    const abandoned = await countAbandoned(database)
    t.comment(`answered ${load.answered.length}, abandoned ${abandoned}, retries ${JSON.stringify([...load.retries])}`)
    t.ok(abandoned > 0, 'the sleeper had signed what the other instance abandoned')
    await assertSound(t, database, load, pollers)
  },
)
