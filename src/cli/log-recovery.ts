/** `chancery roll recover`, `adopt-database` and `succeed`: for the operator beside the database, on a bad day. */
import type { Command } from 'commander'

import { Failure } from '../lib/failure.ts'
import { openOutput } from '../lib/output.ts'
import { countText, openStderrProgress } from '../lib/progress.ts'
import { openAnswers } from './answers.ts'
import type { RecoverOptions } from './log-recover.ts'
import type { Succession } from './log-succeed.ts'
import type { LoadSettings } from './with-records.ts'

export const addRollRecoveryCommands = (program: Command, settings: LoadSettings): void => {
  const roll = program.commands.find((command) => command.name() === 'roll') ?? program.command('roll')
  addRecover(roll, settings)
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
    .option('--confirm <origin>', 'the new origin once more: for scripts, which nobody asks')
    .action(async ({ origin, confirm }: { readonly origin: string; readonly confirm?: string }) => {
      const [{ runSucceed }, { config, log }] = [await import('./log-succeed.ts'), await settings()]
      process.stdout.write(`${await runSucceed(config, log, origin, (what) => confirmed(what, confirm))}\n`)
    })
}

const addRecover = (roll: Command, settings: LoadSettings): void => {
  roll
    .command('recover')
    .description('put back what a restored database lacks, from exported tiles of its roll')
    .requiredOption('--from <folder>', 'with checkpoint and tile/entries/, as "chancery roll export" writes it')
    .option('--profiles <file...>', 'documents of profiles that were applied after the backup (YAML or JSON)', [])
    .option(
      '--chain <file...>',
      'certificates above issuers that were created after the backup, their roots too (PEM)',
      [],
    )
    .option('--key <key>', "the roll's key, or a file with it, where the backup is from before there was one")
    .option(
      '--check',
      'verify, put all back in one transaction that is then taken back, and say what would be done',
      false,
    )
    .option('--json', 'print JSON for machines', false)
    .action(async (options: Omit<RecoverOptions, 'chains'> & { readonly chain: string[]; readonly json: boolean }) => {
      const [{ runRecover, recoveryText }, { config, log }] = [await import('./log-recover.ts'), await settings()]
      const progress = openStderrProgress()
      const { chain: chains, json, ...rest } = options
      const found = await runRecover(config, log, { ...rest, chains }, progress).finally(() => progress.end())
      openOutput(json, (text) => process.stdout.write(text)).show(found, recoveryText(found, options.check))
      if (found.missingUntil !== undefined) throw new Failure('refused', '')
    })
}

const confirmed = async (what: Succession, given: string | undefined): Promise<boolean> => {
  const { from, origin, size, isOnRecord } = what
  const tell = (text: string): void => void process.stderr.write(text)
  tell(
    isOnRecord
      ? `The records already go on as ${origin}. The ${countText(from.size)} entries that were seen here of ${from.origin} are given up here too.\n`
      : `Of ${from.origin}, ${countText(from.size)} entries were seen here, and the ${countText(size)} in the records do not contain them. Certificates and revocations that are only in the others are lost for good, and whoever verifies the roll will see that.\n`,
  )
  if (given !== undefined) return given === origin
  if (!process.stdin.isTTY || !process.stderr.isTTY)
    throw new Failure('usage', `Nothing was changed. To do it without being asked, add --confirm ${origin}`)
  const answers = openAnswers(process.stdin)
  tell('Type the new origin to give them up: ')
  try {
    return await answers.match(origin.toLowerCase(), () => tell('That is not it. Once more: '))
  } finally {
    answers.close()
  }
}
