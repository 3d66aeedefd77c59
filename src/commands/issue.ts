/** `chancery issue` and `explain`: ask for a certificate, or ask why (not). */
import { randomUUID } from 'node:crypto'
import { access, constants, readFile, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'

import type { Command } from 'commander'

import { exitCodes, Failure } from './failure.ts'
import { visible } from './output.ts'
import { openRest, type RestOptions, withRestOptions } from './rest.ts'

interface AskOptions extends RestOptions {
  readonly csr: string
  readonly profile: string
  readonly validity?: string
  readonly dns?: string[]
  readonly ip?: string[]
  readonly uri?: string[]
  readonly email?: string[]
}

interface IssueOptions extends AskOptions {
  readonly out?: string
  readonly idempotencyKey?: string
}

interface Check {
  readonly check: string
  readonly outcome: 'passed' | 'failed' | 'skipped'
  readonly field: string
  readonly value: string
  readonly reason: string
}

interface Decision {
  readonly allowed: boolean
  readonly checks: readonly Check[]
  readonly notes: readonly { readonly field: string; readonly reason: string }[]
}

export const addIssueCommands = (program: Command): void => {
  withAskOptions(program.command('issue').description('issue a certificate for a request'))
    .option('--out <file>', 'write the chain there instead of printing it')
    .option('--idempotency-key <key>', 'make retries of this very call safe; a new one each time by default')
    .action(async (options: IssueOptions) => {
      const { client, out } = await openRest(options)
      if (options.out !== undefined) await assertWritable(options.out)
      const key = options.idempotencyKey ?? randomUUID()
      const call = { headers: { 'idempotency-key': key }, body: await bodyOf(options) }
      const answer = await client.call('POST', '/v1/certificates', call).catch((error: unknown) => withKey(error, key))
      const issued = answer.json<IssuedAnswer>()
      const chain = [issued.certificate, ...issued.chain].join('')
      for (const { field, reason } of issued.notes) process.stderr.write(`note: ${visible(`${field} ${reason}`)}\n`)
      if (options.out === undefined) return out.show(issued, chain)
      await writeFile(options.out, chain)
      out.show(issued, `${issued.serial}, valid until ${issued.notAfter}, is in ${options.out}.`)
    })

  withAskOptions(
    program.command('explain').description('decide a request without issuing; exit code 3 if it would be refused'),
  ).action(async (options: AskOptions) => {
    const { client, out } = await openRest(options)
    const answer = await client.call('POST', '/v1/certificates', {
      query: { dryRun: 'true' },
      body: await bodyOf(options),
    })
    const decision = answer.json<Decision>()
    out.show(decision, explanation(decision))
    if (!decision.allowed) throw new Failure('refused', 'The request would be refused.')
  })
}

interface IssuedAnswer {
  readonly serial: string
  readonly certificate: string
  readonly chain: readonly string[]
  readonly notAfter: string
  readonly notes: Decision['notes']
}

/** Before anything is issued: a certificate that cannot be written would be lost. */
const assertWritable = async (file: string): Promise<void> => {
  try {
    await access(dirname(file), constants.W_OK)
  } catch (error) {
    throw new Failure(
      'usage',
      `${file} cannot be written (${(error as NodeJS.ErrnoException).code}); nothing was issued.`,
    )
  }
}

/** What may have been issued is found again under the same key. */
const withKey = (error: unknown, key: string): never => {
  if (!(error instanceof Failure) || error.exitCode !== exitCodes.later) throw error
  const hint = `To try again without a second certificate: --idempotency-key ${key}`
  throw new Failure('later', `${error.message}\n${hint}`, error.problem)
}

const withAskOptions = (command: Command): Command =>
  withRestOptions(command)
    .requiredOption('--csr <file>', 'PEM certificate request; - reads standard input')
    .requiredOption('--profile <name>')
    .option('--validity <duration>', 'such as 24h or 30d')
    .option('--dns <name...>', 'these names instead of those in the request')
    .option('--ip <address...>')
    .option('--uri <uri...>')
    .option('--email <address...>')

const bodyOf = async ({ csr, profile, validity, dns, ip, uri, email }: AskOptions): Promise<object> => {
  const names = { ...(dns && { dns }), ...(ip && { ip }), ...(uri && { uri }), ...(email && { email }) }
  return {
    csr: await readRequest(csr),
    profile,
    ...(validity !== undefined && { validity }),
    ...(Object.keys(names).length > 0 && { names }),
  }
}

const readRequest = async (file: string): Promise<string> => {
  try {
    if (file !== '-') return await readFile(file, 'latin1')
    const chunks: Buffer[] = []
    for await (const chunk of process.stdin) chunks.push(chunk as Buffer)
    return Buffer.concat(chunks).toString('latin1')
  } catch (error) {
    throw new Failure('usage', `${file} cannot be read (${(error as NodeJS.ErrnoException).code}).`)
  }
}

/** The failed checks first, then what passed, then what did not apply; then what was dropped or shortened. */
export const explanation = ({ allowed, checks, notes }: Decision): string => {
  const sorted = [...checks].sort((a, b) => order.indexOf(a.outcome) - order.indexOf(b.outcome))
  const width = Math.max(0, ...checks.map(({ check }) => check.length))
  const lines = sorted.map(({ check, outcome, field, value, reason }) =>
    visible(
      `${marks[outcome]} ${check.padEnd(width)}  ${[field, value, reason].filter((part) => part !== '').join('  ')}`,
    ).trimEnd(),
  )
  const notices = notes.map(({ field, reason }) => visible(`note  ${field}  ${reason}`))
  return [allowed ? 'This request would be issued.' : 'This request would be refused.', ...lines, ...notices].join('\n')
}

const order = ['failed', 'passed', 'skipped'] as const
const marks = { failed: 'FAILED ', passed: 'passed ', skipped: 'skipped' } as const
