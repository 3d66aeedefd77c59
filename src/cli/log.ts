/** `chancery roll`: what an auditor does with a roll, at the service or anywhere else. What does it is loaded when it is wanted. */

import type { Command } from 'commander'

import type { Exported } from '../auditor/export.ts'
import type { Verified } from '../auditor/findings.ts'
import type { GivenEntry, GivenProof } from '../auditor/prove.ts'
import type { GivenNote } from '../auditor/state.ts'
import { segment } from '../client/rest.ts'
import { Failure } from '../lib/failure.ts'
import { readGiven } from '../lib/input-files.ts'
import { formatTable, type Output, openOutput, visible } from '../lib/output.ts'
import { countText, openStderrProgress } from '../lib/progress.ts'
import type { Finding } from '../tlog/findings.ts'
import { withAnswers } from './answers.ts'
import { eventRow } from './event-text.ts'
import type { Succession } from './log-succeed.ts'
import { openRest, type RestOptions, readAll, withRestOptions } from './rest.ts'
import type { LoadSettings } from './with-records.ts'

export interface RollOptions extends RestOptions {
  readonly from?: string
  readonly key: readonly string[]
}

export const addRollCommand = (program: Command, settings: LoadSettings): void => {
  const roll = program.command('roll').description('the log of everything that was done: get it, verify it, search it')
  addKeyCommand(roll)
  addCheckpointCommand(roll)
  addExportCommand(roll)
  addVerifyCommand(roll, settings)
  addProveCommand(roll)
  addSearchCommand(roll)
  addLossCommands(roll, settings)
}

const addKeyCommand = (roll: Command): void => {
  withRestOptions(
    roll
      .command('key')
      .description('the keys that have signed for the roll, as the service tells them; pin what you get'),
  ).action(async (options: RestOptions) => {
    const { client, out } = await openRest(options)
    const rows = await readAll<{ index: number; entry: string }>(client, '/v1/events', { type: 'roll.opened' }, 1_000)
    const keys = rows.map(({ index, entry }) => ({ index, ...openingOf(entry) }))
    out.show(keys, keys.map(({ key }) => key).join('\n'))
  })
}

const addCheckpointCommand = (roll: Command): void => {
  withSourceOptions(roll.command('checkpoint').description('the newest checkpoint, when its signature holds')).action(
    async (options: RollOptions) => {
      const { readKeys } = await import('../auditor/keys.ts')
      const { openNote } = await import('../auditor/checkpoints.ts')
      const { openSource, readCheckpoint } = await import('../auditor/source.ts')
      const keys = await readKeys(options.key)
      const source = await openSource(options.from, options)
      const note = await readCheckpoint(source)
      const { origin, size, root, cosignatures } = await openNote(note, keys, source.name)
      const witnesses = cosignatures.map(({ key, time }) => ({ name: key.name, time: timeText(time) }))
      outputOf(options).show({ origin, size, root: root.toBase64(), witnesses, note: note.toString() }, note.toString())
    },
  )
}

const addExportCommand = (roll: Command): void => {
  withSourceOptions(
    roll
      .command('export')
      .description(
        'write the roll into a folder of tiles (c2sp.org/tlog-tiles), or what is new of it since the last time',
      ),
  )
    .requiredOption('--out <folder>', 'where to')
    .option('--to <file>', 'end at this checkpoint, and not at the newest')
    .action(async (options: RollOptions & { readonly out: string; readonly to?: string }) => {
      const { exportRoll } = await import('../auditor/export.ts')
      const { readKeys } = await import('../auditor/keys.ts')
      const { openSource } = await import('../auditor/source.ts')
      const progress = openStderrProgress()
      const exported = await exportRoll({
        source: await openSource(options.from, options),
        folder: options.out,
        keys: await readKeys(options.key),
        to: options.to === undefined ? undefined : await readNote(options.to),
        progress: progress.update,
      }).finally(progress.end)
      outputOf(options).show(exported, exportedText(options.out, exported))
    })
}

const exportedText = (out: string, { from, size, mended }: Exported): string => {
  const has = from === size ? `${out} has all ${size} entries` : `${out} has entries ${from} to ${size - 1} now`
  if (mended === 0) return `${has}.`
  const again =
    mended === 1 ? '1 file that was missing or cut off is' : `${mended} files that were missing or cut off are`
  return `${has}; ${again} there again.`
}

interface VerifyOptions extends RollOptions {
  readonly state?: string
  readonly checkpoint: readonly string[]
  /** True: of the settings. */
  readonly database?: string | true
}

const addVerifyCommand = (roll: Command, settings: LoadSettings): void => {
  withSourceOptions(
    roll
      .command('verify')
      .description('compute the roll anew from all of its entries; exit code 3 when anything is found'),
  )
    .option('--state <folder>', 'remember what was verified and every checkpoint that was seen, and go on from there')
    .option('--checkpoint <file>', 'a checkpoint that others have seen, of any size; again for others', collect, [])
    .option('--database [url]', 'the records themselves, against their entries: those of the settings without a URL')
    .action(async (options: VerifyOptions) => {
      const { openReport, showReport, findingText } = await import('../auditor/findings.ts')
      const progress = openStderrProgress()
      const report = openReport((finding) => progress.tell(findingText(finding)))
      const verify = options.database === undefined ? verifyTiles : verifyDatabase(options.database, settings)
      const verified = await verify(options, { tell: report.tell, progress: progress.update }).finally(progress.end)
      showReport(outputOf(options), verified, report)
    })
}

interface Told {
  readonly tell: (finding: Finding) => void
  readonly progress: (done: number, total: number) => void
}

const verifyTiles = async (options: VerifyOptions, told: Told): Promise<Verified> => {
  const { readKeys } = await import('../auditor/keys.ts')
  const { openSource } = await import('../auditor/source.ts')
  const { openStateFolder } = await import('../auditor/state.ts')
  const { verifySource } = await import('../auditor/verify.ts')
  return verifySource({
    source: await openSource(options.from, options),
    keys: await readKeys(options.key),
    checkpoints: await Promise.all(options.checkpoint.map(readSeen)),
    state: options.state === undefined ? undefined : await openStateFolder(options.state),
    ...told,
  })
}

/** Nothing in a database is signed: what is signed has to come from elsewhere. */
const verifyDatabase =
  (url: string | true, settings: LoadSettings) =>
  async (options: VerifyOptions, told: Told): Promise<Verified> => {
    const { readKeys } = await import('../auditor/keys.ts')
    const { verifyDatabase } = await import('./verify-database.ts')
    const { openStateFolder } = await import('../auditor/state.ts')
    if (options.from !== undefined) throw new Failure('usage', 'Either --from or --database.')
    const given = await Promise.all(options.checkpoint.map(readSeen))
    const seen = options.state === undefined ? [] : (await openStateFolder(options.state)).seen
    const checkpoints = [...given, ...seen]
    const keys = checkpoints.length > 0 ? await readKeys(options.key) : { roll: [], witnesses: [] }
    return verifyDatabase(url === true ? await settings() : url, { keys, checkpoints, ...told })
  }

const addProveCommand = (roll: Command): void => {
  withRestOptions(
    roll
      .command('prove <file>')
      .description('verify a proof, from an answer of the service or alone: that its entry is on the roll'),
  )
    .option('--entry <file>', 'the entry; the one beside the proof, or from the service, when left out')
    .option('--key <key>', 'a key of the roll, or a file with one a line; again for others', collect, [])
    .action(
      async (path: string, options: RestOptions & { readonly key: readonly string[]; readonly entry?: string }) => {
        const { readKeys } = await import('../auditor/keys.ts')
        const { isProof, prove, readEntry, readProof } = await import('../auditor/prove.ts')
        const keys = await readKeys(options.key)
        const given = await readProof(path)
        if (options.entry === undefined && given.serial === undefined && !isProof(given))
          throw new Failure('usage', `${path} is no proof, and no answer with one.`)
        const entry = options.entry === undefined ? await entryOf(given, options) : await readEntry(options.entry)
        const proven = await prove(given, entry, keys)
        const { index, checkpoint } = proven
        const { type, time, what } = eventRow({ index, entry: entry.octets.toString() })
        outputOf(options).show(
          proven,
          `Entry ${index} is on the roll ${checkpoint.origin}, among ${checkpoint.size}.\n${[time, type, what].map((cell) => visible(String(cell))).join('  ')}`,
        )
      },
    )
}

/** The entry beside the proof, or from the service, which gives it to callers that may read the certificate. */
const entryOf = async ({ serial, entry }: GivenProof, options: RestOptions): Promise<GivenEntry> => {
  if (typeof entry === 'string') return { octets: Buffer.from(entry) }
  if (serial === undefined)
    throw new Failure('usage', 'A proof alone does not say whose it is: give the entry with --entry.')
  const { client } = await openRest(options)
  const told = (await client.call('GET', `/v1/certificates/${segment(serial)}/proof`)).json<Partial<GivenProof>>()
  if (typeof told.entry !== 'string')
    throw new Failure(
      'missing',
      `The service tells no entry of the certificate ${visible(serial)}, as one of an older version: give the entry with --entry, as an auditor finds it by GET /v1/events?serial=${visible(serial)}&type=certificate.issued.`,
    )
  return { octets: Buffer.from(told.entry) }
}

interface SearchOptions extends RollOptions {
  readonly name: string
  readonly at?: string
}

const addSearchCommand = (roll: Command): void => {
  withSourceOptions(
    roll
      .command('search')
      .description(
        'every certificate that was issued for a name, from all entries: that there are no others is proven',
      ),
  )
    .requiredOption(
      '--name <name>',
      'exact, which finds wildcard names over it too, or *.suffix for every DNS name below it',
    )
    .option('--at <file>', 'up to this checkpoint, and not the newest')
    .action(async (options: SearchOptions) => {
      const { soughtFault } = await import('../x509/names.ts')
      const fault = soughtFault(options.name)
      if (fault !== undefined) throw new Failure('usage', `${visible(options.name)} ${fault}.`)
      const { readKeys } = await import('../auditor/keys.ts')
      const { searchRoll } = await import('../auditor/search.ts')
      const { openSource } = await import('../auditor/source.ts')
      const progress = openStderrProgress()
      const found = await searchRoll({
        source: await openSource(options.from, options),
        keys: await readKeys(options.key),
        name: options.name,
        at: options.at === undefined ? undefined : await readNote(options.at),
        now: new Date(),
        progress: progress.update,
      }).finally(progress.end)
      const { items, checkpoint, abandoned } = found
      const rows = items.map((row) => ({ ...row, profile: `${row.profile.name}@${row.profile.version}` }))
      const end = `${items.length === 1 ? '1 certificate' : `${items.length} certificates`} for ${visible(options.name)} among ${checkpoint.size} entries of ${checkpoint.origin}, and no others.\n`
      outputOf(options).show(
        found,
        (rows.length > 0 ? formatTable(rows, foundColumns) : '') + end + abandonedText(abandoned),
      )
    })
}

/** What no entry tells the names of cannot be left unsaid where it is said that there are no others. */
const abandonedText = (count: number): string =>
  count === 0
    ? ''
    : `Of ${count === 1 ? '1 issuance that was abandoned' : `${count} issuances that were abandoned`} no entry tells the names: what may have been signed was given to no caller, and its serial is on the lists of revocations ("chancery audit events --type issuance.abandoned").\n`

const foundColumns = ['index', 'serial', 'status', 'profile', 'principal', 'subject', 'names', 'notAfter']

/** For the operator beside the database, after a move or a loss. */
const addLossCommands = (roll: Command, settings: LoadSettings): void => {
  roll
    .command('adopt-database')
    .description(
      'accept that the records have moved to another database, here or elsewhere, after a look at what was seen of them',
    )
    .option('--reason <text>', 'why; kept on the roll')
    .action(async ({ reason }: { readonly reason?: string }) => {
      const [{ runAdoptDatabase }, { config, log }] = [await import('./log-succeed.ts'), await settings()]
      process.stdout.write(`${await runAdoptDatabase(config, log, reason)}\n`)
    })
  roll
    .command('succeed')
    .description('give up entries that are lost for good: the roll goes on under a new origin, and says so')
    .requiredOption('--origin <origin>', 'the new one, as ca.example.com/roll-2')
    .option('--confirm <origin>', 'the new origin once more: for scripts')
    .action(async ({ origin, confirm }: { readonly origin: string; readonly confirm?: string }) => {
      const [{ runSucceed }, { config, log }] = [await import('./log-succeed.ts'), await settings()]
      process.stdout.write(`${await runSucceed(config, log, origin, (what) => confirmed(what, confirm))}\n`)
    })
}

const confirmed = async (what: Succession, given: string | undefined): Promise<boolean> => {
  const { from, origin, size, isOnRecord } = what
  const tell = (text: string): void => void process.stderr.write(text)
  tell(
    isOnRecord
      ? `The records already go on as ${origin}. The ${countText(from.size)} entries that were seen here of ${from.origin} are given up here too.\n`
      : `Of ${from.origin}, ${countText(from.size)} entries were seen here, and the ${countText(size)} in the records do not contain them. Certificates and revocations that are only in the others are lost for good, and a verification of the roll will show that.\n`,
  )
  if (given !== undefined) return given === origin
  return withAnswers(async (answers) => {
    if (!answers)
      throw new Failure('usage', `Nothing was changed. To do it without being asked, add --confirm ${origin}`)
    tell('Type the new origin to give them up: ')
    return answers.match(origin.toLowerCase(), () => tell('That is not it. Once more: '))
  })
}

const withSourceOptions = (command: Command): Command =>
  withRestOptions(command)
    .option('--from <place>', 'a folder of tiles, or the URL of one; the roll of --server when left out')
    .option('--anonymous', 'send no token, and trust the certificates that this system trusts')
    .option('--key <key>', 'a key of the roll, or a file with one a line; again for others', collect, [])

const collect = (value: string, before: readonly string[]): readonly string[] => [...before, value]

const outputOf = ({ json }: RestOptions): Output => openOutput(json === true)

const readNote = (path: string): Promise<Buffer> => readGiven(path, 'The checkpoint ')

const readSeen = async (name: string): Promise<GivenNote> => ({ note: await readNote(name), name })

const openingOf = (entry: string) => {
  const { time, origin, key, succeeds, by } = JSON.parse(entry)
  return { time, origin, key, succeeds, by }
}

const timeText = (seconds: number | undefined): string | null =>
  seconds === undefined ? null : new Date(1_000 * seconds).toISOString()
