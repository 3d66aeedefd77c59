#!/usr/bin/env node
/** The `chancery` command. Each verb is a file in cli/; what serves is loaded only by those that need it. */
import { Command, CommanderError, Option } from 'commander'

import { takeSignals } from './cli/stop.ts'
import { version } from './cli/version.ts'
import type { Config } from './config/config.ts'
import { exitCodes, Failure } from './lib/failure.ts'
import { jsonText, openOutput } from './lib/output.ts'
import { guardStreams } from './lib/standard-streams.ts'

const description =
  'An online certificate authority: every signature recorded before it is made, every refusal explained.'
const askForHelp = 'Run it with --help for what it takes.'

const main = async (argv: readonly string[]): Promise<number> => {
  const program = new Command('chancery')
    .description(description)
    .version(version, '-V, --version', 'print the version')
    // `--version` after a verb is an error of that verb, not a question for the program's version.
    .enablePositionalOptions()
    .showHelpAfterError(askForHelp)
    .exitOverride()
  program.helpInformation = helpText
  const isJson = argv.includes('--json')
  const streams = services.has(argv[0] ?? '') ? undefined : guardStreams()
  // `tell` prints errors of the command line as JSON then.
  if (isJson) program.configureOutput({ writeErr: () => {} })
  for (const add of adding(argv[0])) await add(program)
  for (const command of everyCommand(program)) {
    command.exitOverride()
    refuseTwice(command)
    const verbs = command.commands.map((verb) => verb.name())
    // An error in a group lists its commands.
    if (command !== program && verbs.length > 0)
      command.showHelpAfterError(`Its commands are ${verbs.join(', ')}. ${askForHelp}`)
  }
  try {
    await program.parseAsync(argv, { from: 'user' })
  } catch (error) {
    const code = tell(error, isJson)
    // 0: the help or the version was printed.
    if (code !== 0) return code
  }
  const fault = streams?.fault()
  return fault === undefined ? 0 : tell(fault, isJson)
}

const addServiceCommands = (program: Command): void => {
  program
    .command('serve')
    .description('run the service; settings come from CHANCERY_* and the file that CHANCERY_CONFIG names')
    .addOption(
      new Option('--log <where>', 'stdout, or file: chancery.log in the data folder').choices(['stdout', 'file']),
    )
    .action(async ({ log: where }: { readonly log?: string }) => {
      const stop = takeSignals()
      const { explainStart } = await import('./cli/start-fault.ts')
      const config = await loadSettings('serve')
      const serving = async (): Promise<void> => {
        const { openLogFile, runServe } = await import('./cli/serve.ts')
        const file = where === 'file' ? await openLogFile(config) : undefined
        await runServe(config, await serviceLog(config, file?.fd), stop, file?.path)
      }
      await serving().catch(explainStart(config))
    })
  program
    .command('migrate')
    .description("bring the database's schema up to date, as its owner")
    .action(async () => {
      const [{ runMigrate }, config] = [await import('./cli/migrate.ts'), await loadSettings('migrate')]
      const version = await runMigrate(config, await serviceLog(config))
      process.stdout.write(`The schema is at version ${version}.\n`)
    })
}

const addDoctorCommand = (program: Command): void => {
  program
    .command('doctor')
    .description('say what is not fit for production; exit code 3 if anything')
    .option('--json', 'print JSON for machines')
    .action(async ({ json = false }: { readonly json?: boolean }) => {
      const [{ runDoctor, diagnosisText }, { config, log }] = [await import('./cli/doctor.ts'), await besideSettings()]
      const found = await runDoctor(process.env, config, log)
      openOutput(json).show(found, diagnosisText(found))
      if (found.refused.length + found.unwise.length > 0) throw new Failure('refused', '')
    })
}

const addKeyCommand = (program: Command): void => {
  const key = program.command('key').description('keys in security modules, beside the database and the module')
  key
    .command('probe <uri>')
    .description('open a key as the service would, with a trial signature, and show how its token holds it')
    .option('--json', 'print JSON for machines')
    .action(async (uri: string, { json = false }: { readonly json?: boolean }) => {
      const [{ runProbe, probeText }, { config, log }] = [await import('./cli/key.ts'), await besideSettings()]
      const found = await runProbe(config, log, uri)
      openOutput(json).show(found, probeText(found))
    })
}

/** It has no settings of the service. */
const addWitnessCommand = (program: Command): void => {
  program
    .command('witness <file>')
    .description(
      'cosign the checkpoints of rolls that a file (YAML) names, as long as each has grown out of the one before',
    )
    .action(async (file: string) => {
      const stop = takeSignals()
      const [{ runWitness }, { openServiceLog }] = [
        await import('./cli/witness.ts'),
        await import('./cli/log-output.ts'),
      ]
      await runWitness(file, openServiceLog('info', atOnce), stop)
    })
}

/** It has a file of its own, or none. */
const addControllerCommand = (program: Command): void => {
  program
    .command('controller [file]')
    .description(
      'serve a Kubernetes cluster: cert-manager, CertificateSigningRequests; a file (YAML) has what is not as usual',
    )
    .action(async (file: string | undefined) => {
      const stop = takeSignals()
      const [{ runController }, { openServiceLog }] = [
        await import('./cli/controller.ts'),
        await import('./cli/log-output.ts'),
      ]
      await runController(file, (level) => openServiceLog(level, atOnce), stop)
      // A credential program of the kubeconfig may hang.
      setTimeout(() => process.exit(), 500).unref()
    })
}

/** The log of a process that serves or migrates. */
const serviceLog = async ({ log: { level } }: Config, fd = 1) => {
  const { openServiceLog } = await import('./cli/log-output.ts')
  return openServiceLog(level, { fd, gatherMs: 200 })
}

/** For a command that works beside the service: it logs to standard error, since standard output is its answer. */
const besideSettings = async () => {
  const config = await loadSettings('serve')
  const [{ pino }, { logOptions }] = [await import('pino'), await import('./log.ts')]
  return { config, log: pino(logOptions(config.log.level), pino.destination({ dest: 2, sync: true })) }
}

const loadSettings = async (purpose: 'serve' | 'migrate') => {
  const { loadConfig } = await import('./config/config.ts')
  return loadConfig(process.env, purpose).catch((error: Error) => {
    throw new Failure('usage', error.message)
  })
}

/** Says what went wrong on standard error, and returns the exit code. */
const tell = (error: unknown, json: boolean): number => {
  if (error instanceof CommanderError && (error.exitCode === 0 || !json))
    return error.exitCode === 0 ? 0 : exitCodes.usage
  const failure =
    error instanceof Failure
      ? error
      : error instanceof CommanderError
        ? new Failure('usage', error.message.replace(/^error: /, ''))
        : new Failure('failed', error instanceof Error ? error.message : String(error))
  if (failure.message !== '') process.stderr.write(`${json ? jsonText(failure) : failure.message}\n`)
  return failure.exitCode
}

const atOnce = { fd: 2, gatherMs: 0 } as const

/** They log to their standard streams. */
const services: ReadonlySet<string> = new Set(['serve', 'migrate', 'witness', 'controller'])

const everyCommand = (command: Command): readonly Command[] => [command, ...command.commands.flatMap(everyCommand)]

/** Rejects an option that takes one value and is given twice: the last would silently win. */
const refuseTwice = (command: Command): void => {
  for (const option of command.options.filter(takesOneValue)) {
    let given = 0
    command.on(`option:${option.name()}`, () => {
      if (++given > 1) command.error(`error: option '${option.flags}' is given more than once, and takes one value`)
    })
  }
}

/** An option that collects several values has an array as its default. */
const takesOneValue = ({ required, optional, variadic, defaultValue }: Option): boolean =>
  (required || optional) && !variadic && !Array.isArray(defaultValue)

type Add = (program: Command) => void | Promise<void>

interface Verbs {
  /** For whom the help lists them. */
  readonly user: string
  /** Each with its line in the help. */
  readonly verbs: Readonly<Record<string, string>>
  /** Loads the files of these verbs alone. */
  readonly add: Add
}

/** In the order of the help. */
export const commands: readonly Verbs[] = [
  {
    user: 'Requester',
    verbs: { issue: 'get a certificate, and keep it fresh', explain: 'say whether it would be issued, and why not' },
    add: async (to) => (await import('./cli/issue.ts')).addIssueCommands(to),
  },
  {
    user: 'Requester',
    verbs: { 'issue-many': 'get certificates for many requests at once' },
    add: async (to) => (await import('./cli/issue-many.ts')).addIssueManyCommand(to),
  },
  {
    user: 'Requester',
    verbs: { certificate: 'search and show certificates, their proofs and renewal' },
    add: async (to) => (await import('./cli/certificate.ts')).addCertificateCommand(to),
  },
  {
    user: 'Requester',
    verbs: { revoke: 'revoke a certificate, or release it from hold' },
    add: async (to) => (await import('./cli/revoke.ts')).addRevokeCommand(to),
  },
  {
    user: 'Requester',
    verbs: { login: 'use a server from now on', context: 'servers that you use, and as whom' },
    add: async (to) => (await import('./cli/context.ts')).addContextCommands(to),
  },
  {
    user: 'Approver',
    verbs: { request: 'requests that people must approve' },
    add: async (to) => (await import('./cli/request.ts')).addRequestCommand(to),
  },
  {
    user: 'Administrator',
    verbs: { profile: 'what certificates may look like' },
    add: async (to) => (await import('./cli/profile.ts')).addProfileCommand(to),
  },
  {
    user: 'Administrator',
    verbs: { principal: 'users of the API' },
    add: async (to) => (await import('./cli/access.ts')).addPrincipalCommand(to),
  },
  {
    user: 'Administrator',
    verbs: { grant: 'what principals may do' },
    add: async (to) => (await import('./cli/access.ts')).addGrantCommand(to),
  },
  {
    user: 'Administrator',
    verbs: { token: 'bearer tokens of principals' },
    add: async (to) => (await import('./cli/access.ts')).addTokenCommand(to, besideSettings),
  },
  {
    user: 'Administrator',
    verbs: { credential: 'client certificates of principals' },
    add: async (to) => (await import('./cli/credential.ts')).addCredentialCommand(to),
  },
  {
    user: 'Administrator',
    verbs: { 'identity-provider': 'identity providers whose tokens are taken' },
    add: async (to) => (await import('./cli/identity-provider.ts')).addIdentityProviderCommand(to),
  },
  {
    user: 'Operator',
    verbs: { issuer: 'create, import, activate and retire issuers' },
    add: async (to) => (await import('./cli/issuer.ts')).addIssuerCommand(to),
  },
  {
    user: 'Operator',
    verbs: { crl: 'inspect a CRL, or import that of an offline root' },
    add: async (to) => (await import('./cli/crl.ts')).addCrlCommand(to),
  },
  {
    user: 'Operator',
    verbs: { 'revoke-many': 'revoke all certificates of a search', revocations: 'how far such orders have come' },
    add: async (to) => (await import('./cli/revoke-many.ts')).addRevokeManyCommand(to),
  },
  {
    user: 'Operator',
    verbs: { ceremony: 'what is done with an offline root' },
    add: async (to) => (await import('./cli/ceremony/ceremony.ts')).addCeremonyCommand(to),
  },
  {
    user: 'Auditor',
    verbs: { audit: 'search and export certificates, events, refusals, accesses' },
    add: async (to) => (await import('./cli/audit.ts')).addAuditCommand(to),
  },
  {
    user: 'Auditor',
    verbs: { roll: 'export, verify, search and prove the log' },
    add: async (to) => (await import('./cli/log.ts')).addRollCommand(to, besideSettings),
  },
  {
    user: 'On the server',
    verbs: { serve: 'run the service', migrate: "bring the database's schema up to date, as its owner" },
    add: addServiceCommands,
  },
  { user: 'On the server', verbs: { doctor: 'say what is not fit for production' }, add: addDoctorCommand },
  { user: 'On the server', verbs: { key: 'keys in security modules' }, add: addKeyCommand },
  { user: 'On the server', verbs: { controller: 'serve a Kubernetes cluster' }, add: addControllerCommand },
  { user: 'On the server', verbs: { witness: 'cosign the checkpoints of logs' }, add: addWitnessCommand },
]

/** One screen, by who needs what. */
const helpText = (): string => {
  const groups = Object.groupBy(commands, ({ user }) => user)
  const verbsOf = (group: readonly Verbs[] = []): readonly string[] =>
    group.flatMap(({ verbs }) => Object.entries(verbs).map(([verb, does]) => `  ${verb.padEnd(18)} ${does}`))
  return [
    'Usage: chancery <command> [options]; chancery <command> --help says more, chancery --version the version.',
    description,
    ...Object.entries(groups).flatMap(([user, group]) => [`${user}:`, ...verbsOf(group)]),
    '',
  ].join('\n')
}

/** All commands where the first word is no verb: it may be mistyped, or ask for help. */
const adding = (verb: string | undefined): readonly Add[] => {
  const named = commands.filter(({ verbs }) => Object.hasOwn(verbs, verb ?? ''))
  return (named.length > 0 ? named : commands).map(({ add }) => add)
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2))
