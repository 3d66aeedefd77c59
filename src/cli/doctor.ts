/** `chancery doctor`: what is not fit for production, in sentences. */
import { type Config, loadConfig } from '../config/config.ts'
import { heldUpBy } from '../db/lock-waits.ts'
import { readLastMode } from '../db/log-opening.ts'
import { movedCollation, onlyReads } from '../db/safety.ts'
import { hasNoNumber, hasNoRoom, noNumber } from '../db/write-failures.ts'
import { isProblem } from '../errors.ts'
import type { Log } from '../log.ts'
import { openKeys } from '../server/keys.ts'
import { probing } from './key.ts'
import { unsafe, unwise } from './preflight.ts'
import { type CommandRecords, withRecords } from './with-records.ts'

export interface Diagnosis {
  /** Production does not start with these. */
  readonly refused: readonly string[]
  /** Production starts with these. */
  readonly unwise: readonly string[]
}

/**
 * Looks at the settings as production would, and at the records and keys as they are. Keys are opened as the service opens
 * them: that is on the roll, and it tries PINs.
 */
export const runDoctor = async (
  env: Readonly<Record<string, string | undefined>>,
  config: Config,
  log: Log,
): Promise<Diagnosis> => {
  const settings = await settingFaults(env)
  return withRecords(config, log, async (records) => {
    const { db } = records
    const keys = probing(records, await openKeys(config, log))
    try {
      return {
        refused: [...settings, ...(await writeFault(records)), ...(await unsafe(config, db))].map(sentence),
        unwise: [
          ...(await modeFault(config, records)),
          ...(await roomFault(records)),
          ...(await heldUpBy(db)),
          ...(await orderFault(records)),
          ...clockFault(records),
          ...(await unwise(config, db, keys, new Date())),
        ].map(sentence),
      }
    } finally {
      await keys.close()
    }
  })
}

export const diagnosisText = ({ refused, unwise: other }: Diagnosis): string =>
  [
    ...section('Production does not start:', refused),
    ...section(refused.length === 0 ? 'Production starts, but:' : 'Besides:', other),
    ...(refused.length + other.length === 0 ? ['Fit for production.'] : []),
  ].join('\n')

const section = (title: string, sentences: readonly string[]): readonly string[] =>
  sentences.length === 0 ? [] : [title, ...sentences.map((text) => `  - ${text}`)]

/** One list, as `serve` would give it in production. */
const settingFaults = async (env: Readonly<Record<string, string | undefined>>): Promise<readonly string[]> => {
  try {
    await loadConfig({ ...env, CHANCERY_MODE: 'production' })
    return []
  } catch (error) {
    return (error as Error).message.split('\n').flatMap((line) => /^ {2}- (.*?)\.?$/.exec(line)?.[1] ?? [])
  }
}

const writeFault = async ({ db }: Pick<CommandRecords, 'db'>): Promise<readonly string[]> =>
  (await onlyReads(db))
    ? [
        'the database only reads (a standby, or default_transaction_read_only of the role): name the one that takes writes in CHANCERY_DATABASE_URL',
      ]
    : []

/** Most of what is read and recorded here is small enough to go through. */
const roomFault = async ({ db }: Pick<CommandRecords, 'db'>): Promise<readonly string[]> => [
  ...((await hasNoRoom(db)) ? ['the database has no room on its disk: give it some, and it goes on by itself'] : []),
  ...((await hasNoNumber(db)) ? [noNumber] : []),
]

/** As of files that were copied to a machine of another release: what keeps a key from having two certificates is an index as well. */
const orderFault = async ({ db }: Pick<CommandRecords, 'db'>): Promise<readonly string[]> => {
  const moved = await movedCollation(db)
  if (moved === undefined) return []
  const { database, before, now } = moved
  return [
    `the database was made where texts were sorted by version ${before} of its collation, and here that is ${now}, so that its indexes may miss what is there: as its owner "reindex (concurrently) database ${database}", then "alter database ${database} refresh collation version"`,
  ]
}

/** As of a dump that was restored where the settings of before are not: all that is said besides is of production. */
const modeFault = async ({ mode }: Config, { db }: Pick<CommandRecords, 'db'>): Promise<readonly string[]> =>
  mode !== 'production' && (await readLastMode(db)) === 'production'
    ? ['CHANCERY_MODE is not production, and these records are those of one: nothing starts on them so']
    : []

/** By what was read of both clocks with the records, a moment ago. */
const clockFault = ({ roll }: Pick<CommandRecords, 'roll'>): readonly string[] => {
  try {
    roll.assertClock()
    return []
  } catch (error) {
    if (!isProblem(error)) throw error
    return [error.detail.replace(/\.$/, '')]
  }
}

const sentence = (clause: string): string => `${clause.charAt(0).toUpperCase()}${clause.slice(1)}.`
