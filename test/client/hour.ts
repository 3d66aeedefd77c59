/**
 * An hour in the life of daemons, each of which looks after ten certificates of forty minutes, as a process of its own:
 * `node hour.ts DAEMONS` prints what came of it as JSON. Requests, mutual TLS, keys, files, service and database are real;
 * only waiting is left out. The service dates what it issues by the same simulated clock; its database keeps its own, by
 * which the roll is dated.
 */
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { type LogLine, lookAfter } from '../../src/client/issue/daemon.ts'
import { readTask, wardOf } from '../../src/client/issue/new-certificate.ts'
import { openClient } from '../../src/client/rest.ts'
import { openService } from '../../src/server/service.ts'
import { encodePem } from '../../src/x509/pem.ts'
import { openReplica } from '../helpers/replica.ts'
import { readShown } from './folders.ts'
import { newTime } from './time.ts'

export interface Hour {
  readonly certificates: number
  /** Of each line that a daemon wrote: its event, and when by the simulated clock, in milliseconds. */
  readonly lines: readonly (Pick<LogLine, 'event' | 'text'> & { readonly at: number })[]
  /** Of each certificate: the smallest part of its life that was left when the next one came, or the hour was over. */
  readonly left: readonly number[]
  /** On the roll: those that took the place of another, and all. */
  readonly renewed: number
  readonly issued: number
  /** Folders whose files are not those of the last certificate. */
  readonly stale: number
}

export const minute = 60_000
export const hour = 60 * minute
/** The service is away: no answer to anybody. */
export const outage = { from: 17 * minute, to: 20 * minute }
export const each = 10

const live = async (daemons: number): Promise<Hour> => {
  const closing: (() => unknown)[] = []
  const t = { teardown: (close: () => unknown) => void closing.unshift(close) }
  try {
    return await liveWith(t, daemons)
  } finally {
    for (const close of closing) await close()
  }
}

const liveWith = async (t: { teardown(close: () => unknown): void }, daemons: number): Promise<Hour> => {
  const settings = { CHANCERY_LISTEN: '127.0.0.1:0', CHANCERY_PUBLIC_LISTEN: '127.0.0.1:0' }
  const { stores, keys, config } = await openReplica(t, { env: settings })
  const time = newTime(Date.now(), sameMs)
  // Its own certificate and its issuers are from before the hour began.
  let ca = ''
  const told = async ({ anchor }: { anchor: Buffer }): Promise<void> => {
    ca = encodePem('CERTIFICATE', anchor)
  }
  const service = await openService({ ...stores, clock: () => new Date(time.now()) }, keys, told)
  t.teardown(service.close)
  const { api } = await service.listen()
  const { server } = service.app
  server.prependListener('request', ({ socket }) => {
    if (time.elapsed() >= outage.from && time.elapsed() < outage.to) socket.destroy()
  })

  // Thousands of files are synced one by one: memory does as well, since no machine is switched off here.
  const folder = await mkdtemp(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'chancery-hour-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  await writeFile(join(folder, 'root.pem'), ca)
  const tokenFile = join(config.dataDir, 'admin.token')
  const openAgain = () => openClient({ server: api, ca: join(folder, 'root.pem'), tokenFile }, {})
  const lines: { event: LogLine['event']; text: string; at: number }[] = []
  const lives = new Map<
    string,
    { readonly at: number; readonly serial: string; readonly from: number; readonly to: number }[]
  >()
  const ending = new AbortController()
  const { now, elapsed, sleep } = time
  const watching = Array.from({ length: daemons }, async (_, daemon) => {
    const wards = await Promise.all(
      Array.from({ length: each }, async (_, i) => {
        const name = [`c${i}.d${daemon}.example.com`]
        const out = join(folder, `${daemon}`, `${i}`)
        const ward = wardOf(await readTask({ profile: 'server', name, validity: '40m', out }, api), {
          now,
          openClient: openAgain,
        })
        const pass: typeof ward.pass = async (signal, mayAsk) => {
          const standing = await ward.pass(signal, mayAsk)
          const { serial, notBefore, notAfter } = standing
          const life = { at: now(), serial, from: notBefore.getTime(), to: notAfter.getTime() }
          lives.set(ward.name, [...(lives.get(ward.name) ?? []), life])
          return standing
        }
        return { ...ward, pass }
      }),
    )
    const log = ({ event, text }: LogLine): void => void lines.push({ event, text, at: elapsed() })
    await lookAfter(wards, { now, elapsed, sleep, chance: openChance(daemon), log, signal: ending.signal })
  })

  await time.run(minute / 2, daemons)
  await time.run(hour, daemons)
  ending.abort()
  await Promise.all(watching)

  const left = [...lives.values()].flatMap((list) =>
    list.map(({ from, to }, i) => (to - (list[i + 1]?.at ?? now())) / (to - from)),
  )
  let stale = 0
  for (const [path, list] of lives) if ((await readShown(path))?.serial !== list.at(-1)?.serial) stale += 1
  const count = async (condition: string): Promise<number> => {
    const { rows } = await stores.db.query<{ count: string }>({
      text: `select count(*) from outcomes o join intents i using (serial)
        where o.kind = 'certificate' and o.profile = 'server' and ${condition}`,
    })
    return Number(rows[0]?.count)
  }
  const [renewed, issued] = [await count('i.replaces is not null'), await count('true')]
  return { certificates: lives.size, lines, left, renewed, issued, stale }
}

/** The same each time. */
const openChance = (from: number): (() => number) => {
  let seed = (from + 1) * 7_919_777
  return () => {
    seed = (seed * 48_271) % 2_147_483_647
    return seed / 2_147_483_647
  }
}

/** Whoever wakes within this span works side by side. */
const sameMs = 5_000

if (import.meta.main) process.stdout.write(JSON.stringify(await live(Number(process.argv[2]))))
