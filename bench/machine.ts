/** What the figures were taken on: versions, processor, kernel, and how long the disk takes to make something durable. */
import { open, rm } from 'node:fs/promises'
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os'
import { join } from 'node:path'

import { countBy, type DatabaseUrls, withClient } from './place.ts'
import { outputOf } from './process.ts'
import { readText } from './processors.ts'
import { cfsslVersion } from './targets/cfssl.ts'

export interface Machine {
  readonly processor: string
  readonly cores: number
  readonly memoryGiB: number
  readonly kernel: string
  readonly system: string
  readonly node: string
  readonly openssl: string
  readonly postgres: string
  readonly cfssl: string
  readonly generator: string
  readonly commit: string
  /** Milliseconds, median and 99th of a hundred, of 8 KiB written and fdatasynced. */
  readonly fdatasync: { readonly p50: number; readonly p99: number }
  readonly loadBefore: number
}

export const describeMachine = async (folder: string, database: DatabaseUrls, generator: string): Promise<Machine> => ({
  processor: cpus()[0]?.model ?? 'unknown',
  cores: availableParallelism(),
  memoryGiB: Math.round(totalmem() / 2 ** 30),
  /** Major and minor: the rest names a build. */
  kernel: release().split('.').slice(0, 2).join('.'),
  system: /^PRETTY_NAME="(.*)"$/m.exec(readText('/etc/os-release'))?.[1] ?? process.platform,
  node: process.version,
  openssl: process.versions.openssl ?? 'unknown',
  postgres: await withClient(database.ownerUrl, async (client) =>
    String((await client.query('show server_version')).rows[0]?.server_version),
  ),
  cfssl: cfsslVersion() ?? 'not installed',
  generator:
    generator === 'wrk' ? ((outputOf('wrk', '-v')?.split('\n')[0] ?? 'wrk').split(' Copyright')[0] ?? '') : 'Node',
  commit: commitOf(),
  fdatasync: await timeFsync(folder),
  loadBefore: loadavg()[0] ?? 0,
})

/** Tables that hold what was issued, index included, in octets for each certificate. */
export const storedOctets = (database: DatabaseUrls, certificates: number): Promise<number> =>
  countBy(database.superuserUrl, `select pg_database_size(current_database()) / ${Math.max(1, certificates)}`)

const commitOf = (): string => {
  const head = outputOf('git', '-C', import.meta.dirname, 'rev-parse', '--short', 'HEAD')?.trim() ?? 'unknown'
  const dirty = outputOf('git', '-C', import.meta.dirname, 'status', '--porcelain', '--', '../src', '../migrations')
  return dirty ? `${head} with changes` : head
}

const timeFsync = async (folder: string): Promise<Machine['fdatasync']> => {
  const path = join(folder, 'fdatasync')
  const file = await open(path, 'w')
  const page = Buffer.alloc(8192, 7)
  const times: number[] = []
  for (let i = 0; i < 100; i += 1) {
    const began = performance.now()
    await file.write(page)
    await file.datasync()
    times.push(performance.now() - began)
  }
  await file.close()
  await rm(path)
  times.sort((a, b) => a - b)
  return { p50: times[50] ?? 0, p99: times[99] ?? 0 }
}
