/**
 * Daemons look after certificates of forty minutes, twenty each, for an hour, with real requests, keys, files and a
 * database; only waiting is left out. The service dates what it issues by the same simulated clock; the roll keeps the
 * time of its database. `CHANCERY_TEST_DAEMONS` says how many (5); with 50 it takes minutes.
 */
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { openClient } from '../../src/commands/client.ts'
import { type LogLine, lookAfter, type Standing } from '../../src/commands/issue/daemon.ts'
import { readTask, wardOf } from '../../src/commands/issue/into.ts'
import { openService } from '../../src/service.ts'
import { encodePem } from '../../src/x509/pem.ts'
import { openReplica } from '../helpers/replica.ts'
import { newFolder, readShown } from './folders.ts'
import { newTime } from './time.ts'

t.setTimeout(600_000)

const daemons = Number(process.env['CHANCERY_TEST_DAEMONS'] ?? 5)
const each = 20
const minute = 60_000
const hour = 60 * minute
/** The service is away: no answer to anybody. */
const outage = { from: 17 * minute, to: 20 * minute }

t.test('certificates are rotated for an hour: none expires, and the load spreads', async (t) => {
  const settings = { CHANCERY_LISTEN: '127.0.0.1:0', CHANCERY_PUBLIC_LISTEN: '127.0.0.1:0' }
  const { stores, keys, config } = await openReplica(t, { env: settings })
  const began = Date.now()
  const time = newTime(began)
  // Its own certificate and its issuers are from before the hour began.
  let ca = ''
  const told = async ({ anchor }: { anchor: Buffer }): Promise<void> => {
    ca = encodePem('CERTIFICATE', anchor)
  }
  const service = await openService({ ...stores, clock: () => new Date(time.now()) }, keys, told)
  t.teardown(service.close)
  const { api } = await service.listen()
  const tokenFile = join(config.dataDir, 'admin.token')
  const { server } = service.app
  server.prependListener('request', ({ socket }) => {
    if (time.elapsed() >= outage.from && time.elapsed() < outage.to) socket.destroy()
  })

  // Thousands of files are synced one by one: memory does as well, since no machine is switched off here.
  const folder = await newFolder(t, existsSync('/dev/shm') ? '/dev/shm' : undefined)
  await writeFile(join(folder, 'root.pem'), ca)
  const openAgain = () => openClient({ server: api, ca: join(folder, 'root.pem'), tokenFile }, {})
  const pathOf = (daemon: number, i: number): string => join(folder, `${daemon}`, `${i}`)
  const lines: (LogLine & { readonly at: number })[] = []
  /** What each folder had, and since when. */
  const held = new Map<string, { readonly at: number; readonly standing: Standing }[]>()
  const ending = new AbortController()
  let seed = 1
  const chance = (): number => {
    seed = (seed * 48_271) % 2_147_483_647
    return seed / 2_147_483_647
  }
  const { now, elapsed, sleep } = time
  const watching = Array.from({ length: daemons }, async (_, daemon) => {
    const wards = await Promise.all(
      Array.from({ length: each }, async (_, i) => {
        const name = [`c${i}.d${daemon}.example.com`]
        const task = await readTask({ profile: 'server', name, validity: '40m', out: pathOf(daemon, i) }, api)
        const ward = wardOf(task, { now, openClient: openAgain })
        const pass: typeof ward.pass = async (signal) => {
          const standing = await ward.pass(signal)
          held.set(ward.name, [...(held.get(ward.name) ?? []), { at: now(), standing }])
          return standing
        }
        return { ...ward, pass }
      }),
    )
    const log = (line: LogLine): void => void lines.push({ ...line, at: elapsed() })
    await lookAfter(wards, { now, elapsed, sleep, chance, log, signal: ending.signal })
  })

  await time.run(minute / 2, daemons)
  t.equal(lines.filter(({ event }) => event === 'renewed').length, daemons * each, 'all have theirs')
  await time.run(hour, daemons)
  ending.abort()
  await Promise.all(watching)

  for (const [folder, list] of held) {
    for (const [i, { standing }] of list.entries()) {
      const until = list[i + 1]?.at ?? now()
      if (standing.notAfter.getTime() <= until) t.fail(`${folder} expired before it was renewed`)
    }
  }
  t.equal(held.size, daemons * each)
  const renewals = lines.filter(({ event, at }) => event === 'renewed' && at > minute)
  t.ok(renewals.length >= 2 * daemons * each, `${renewals.length} renewals`)
  t.same(
    lines.filter(({ event }) => event === 'failed'),
    [],
    'nothing but the outage went wrong',
  )
  const tries = lines.filter(({ event }) => event === 'unreachable')
  const [from, to] = [outage.from / 1_000, outage.to / 1_000]
  t.ok(tries.length >= daemons && tries.length <= 15 * daemons, `${tries.length} tries without a service`)
  t.ok(tries.every(({ at }) => at >= outage.from && at < outage.to + 1_000))
  t.comment(`${renewals.length} renewals, ${tries.length} tries in ${to - from} s without a service`)
  const bySecond = new Map<number, number>()
  for (const { at } of renewals) bySecond.set(Math.floor(at / 1_000), (bySecond.get(Math.floor(at / 1_000)) ?? 0) + 1)
  const busiest = (inside: (second: number) => boolean): number =>
    Math.max(...[...bySecond].filter(([second]) => inside(second)).map(([, count]) => count))
  const isAfterOutage = (second: number): boolean => second >= to && second < to + 120
  t.comment(
    `at most ${busiest((second) => !isAfterOutage(second))} a second, ${busiest(isAfterOutage)} after the outage`,
  )
  t.ok(
    busiest((second) => !isAfterOutage(second)) <= 5 + (daemons * each) / 50,
    'though all were issued within a second',
  )
  const shown = await readShown(pathOf(3, 7))
  t.equal(shown?.serial, held.get(pathOf(3, 7))?.at(-1)?.standing.serial, 'the files are those of the last one')
  const { rows } = await stores.db.query<{ count: string }>({
    name: 'count',
    text: `select count(*) from outcomes where kind = 'certificate' and profile = 'server'`,
  })
  t.equal(Number(rows[0]?.count), daemons * each + renewals.length, 'and the records have what was written, no more')
})
