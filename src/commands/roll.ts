/** `chancery roll`: what an auditor does with a roll, at the service or anywhere else. What does it is loaded when it is wanted. */
import { readFile } from 'node:fs/promises'

import type { Command } from 'commander'

import { Failure } from './failure.ts'
import { type Output, openOutput } from './output.ts'
import { openProgress, type Progress } from './progress.ts'
import { openRest, type RestOptions, readAll, withRestOptions } from './rest.ts'

export interface RollOptions extends RestOptions {
  readonly from?: string
  readonly key: readonly string[]
}

export const addRollCommand = (program: Command): void => {
  const roll = program.command('roll').description('the log of everything that was done: get it, verify it, search it')
  addKeyCommand(roll)
  addCheckpointCommand(roll)
  addExportCommand(roll)
  addVerifyCommand(roll)
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
      const { readKeys } = await import('./roll/keys.ts')
      const { openNote } = await import('./roll/checkpoints.ts')
      const { openSource, readCheckpoint } = await import('./roll/source.ts')
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
      const { exportRoll } = await import('./roll/export.ts')
      const { readKeys } = await import('./roll/keys.ts')
      const { openSource } = await import('./roll/source.ts')
      const progress = onTerminal()
      const exported = await exportRoll({
        source: await openSource(options.from, options),
        folder: options.out,
        keys: await readKeys(options.key),
        to: options.to === undefined ? undefined : await readNote(options.to),
        progress: progress.update,
      }).finally(progress.end)
      const { from, size } = exported
      outputOf(options).show(
        exported,
        from === size
          ? `${options.out} has all ${size} entries.`
          : `${options.out} has entries ${from} to ${size - 1} now.`,
      )
    })
}

interface VerifyOptions extends RollOptions {
  readonly state?: string
  readonly checkpoint: readonly string[]
}

const addVerifyCommand = (roll: Command): void => {
  withSourceOptions(
    roll
      .command('verify')
      .description('compute the roll anew from all of its entries; exit code 3 when anything is found'),
  )
    .option('--state <folder>', 'remember what was verified and every checkpoint that was seen, and go on from there')
    .option('--checkpoint <file…>', 'checkpoints that others have seen, of any size', collect, [])
    .action(async (options: VerifyOptions) => {
      const { openReport, showReport, findingText } = await import('./roll/findings.ts')
      const { readKeys } = await import('./roll/keys.ts')
      const { openSource } = await import('./roll/source.ts')
      const { openStateFolder } = await import('./roll/state.ts')
      const { verifySource } = await import('./roll/verify.ts')
      const progress = onTerminal()
      const report = openReport((finding) => progress.tell(findingText(finding)))
      const verified = await verifySource({
        source: await openSource(options.from, options),
        keys: await readKeys(options.key),
        checkpoints: await Promise.all(options.checkpoint.map(readNote)),
        state: options.state === undefined ? undefined : await openStateFolder(options.state),
        tell: report.tell,
        progress: progress.update,
      }).finally(progress.end)
      showReport(outputOf(options), verified, report)
    })
}

const withSourceOptions = (command: Command): Command =>
  withRestOptions(command)
    .option('--from <place>', 'a folder of tiles, or the URL of one; the roll of --server when left out')
    .option('--anonymous', 'send no token, and trust the certificates that this system trusts')
    .option('--key <key>', 'a key of the roll, or a file with one a line; again for others', collect, [])

const collect = (value: string, before: readonly string[]): readonly string[] => [...before, value]

const outputOf = ({ json }: RestOptions): Output => openOutput(json === true, (text) => process.stdout.write(text))

const onTerminal = (): Progress =>
  openProgress({
    isTerminal: process.stderr.isTTY,
    columns: process.stderr.columns,
    write: (text) => process.stderr.write(text),
    now: () => performance.now(),
  })

const readNote = (path: string): Promise<Buffer> =>
  readFile(path).catch((error: Error) => {
    throw new Failure('usage', `The checkpoint ${path} cannot be read: ${error.message}`)
  })

const openingOf = (entry: string) => {
  const { time, origin, key, succeeds, by } = JSON.parse(entry)
  return { time, origin, key, succeeds, by }
}

const timeText = (seconds: number | undefined): string | null =>
  seconds === undefined ? null : new Date(1_000 * seconds).toISOString()
