/** `chancery issue` and `explain`: ask for a certificate, or ask why (not). */
import type { Command } from 'commander'

import type { Decision } from '../client/issue/explanation.ts'
import { assertNoKey, issueFor, type RequestBody } from '../client/issue/for-request.ts'
import { type IntoOptions, issueInto, type OrderOptions, readOrder } from '../client/issue/new-certificate.ts'
import { bodyFor, keyTypeNames, newKey, readNames, requestFor } from '../client/issue/order.ts'
import { readOrders } from '../client/issue/orders.ts'
import { runDaemon } from '../client/issue/run-daemon.ts'
import type { Client } from '../client/rest.ts'
import { Failure } from '../lib/failure.ts'
import { readGiven } from '../lib/input-files.ts'
import { flagOf } from '../lib/output.ts'
import { openRest, type RestOptions, withRestOptions } from './rest.ts'

interface AskOptions extends RestOptions, OrderOptions {
  readonly csr?: string
}

interface IssueOptions extends RestOptions, IntoOptions {
  readonly csr?: string
  readonly idempotencyKey?: string
  readonly orders?: string
  readonly daemon?: boolean
  readonly wait: boolean
}

export const addIssueCommands = (program: Command): void => {
  withAskOptions(
    program.command('issue').description('issue a certificate: for names, with a key made here, or for a request'),
  )
    .option(
      '--out <path>',
      'the folder for key and certificate; with --csr, a file for the chain instead of printing it',
    )
    .option('--renew-before <time>', 'do nothing while the certificate in --out has longer: 30% of its life, or 720h')
    .option('--reuse-key', 'renew with the key that is there')
    .option('--key-mode <mode>', 'of the key, 0600 by default')
    .option('--owner <user:group>', 'whom the files are given to')
    .option(
      '--exec <command>',
      'run it when new files are in place, without a shell; one that fails is run again next time',
    )
    .option('--shell', 'run it by /bin/sh -c')
    .option(
      '--idempotency-key <key>',
      'with --csr, make retries of this very call safe; with --out as well, one is kept beside it until it is there',
    )
    .option('--orders <file>', 'several of these at once, each with its --out, from a YAML file')
    .option('--no-wait', 'where people must approve it: do not wait for them, but end with 7; run again, it goes on')
    .option('--daemon', 'stay, and renew each at a moment of its own; --renew-before is 33% unless it is said')
    .action(async (options: IssueOptions) => {
      if (options.csr !== undefined) return issueForRequest(options, options.csr)
      assertNot(options, forRequests, 'goes with --csr only; without, retries are safe by themselves')
      const orders = await ordersOf(options)
      if (options.daemon) {
        const openAgain = async (): Promise<Client> => (await openRest({ ...options, tokenLater: true })).client
        return runDaemon({ orders, openClient: openAgain, json: options.json === true })
      }
      const { client, out } = await openRest({ ...options, tokenLater: true })
      await issueInto(orders, client, out)
    })

  withAskOptions(
    program.command('explain').description('decide a request without issuing; exit code 3 if it would be refused'),
  )
    .option('--all', 'show every check')
    .action(async (options: AskOptions & { readonly all?: boolean }) => {
      const body = await bodyOf(options)
      const { client, out } = await openRest(options)
      const answer = await client.call('POST', '/v1/certificates', { query: { dryRun: 'true' }, body })
      const decision = answer.json<Decision>()
      const { explanation, fullExplanation } = await import('../client/issue/explanation.ts')
      out.show(decision, (options.all ? fullExplanation : explanation)(decision))
      if (!decision.allowed) throw new Failure('refused', '')
    })
}

/** Of the command line, or of a file. */
const ordersOf = async (options: IssueOptions): Promise<readonly IntoOptions[]> => {
  const { orders, renewBefore, wait } = options
  if (orders === undefined) return [options]
  assertNot(options, ofOneOrder, 'goes into the file that --orders names')
  return (await readOrders(orders)).map((order) => ({
    ...(renewBefore !== undefined && { renewBefore }),
    wait,
    ...order,
  }))
}

const issueForRequest = async (options: IssueOptions, csr: string): Promise<void> => {
  assertNot(options, forOwnKeys, 'goes with a key that is made here, so without --csr')
  const { client, out } = await openRest(options)
  const { idempotencyKey, out: place, wait } = options
  const file = place === '-' ? undefined : place
  await issueFor(await bodyOfRequest(options, csr), { client, out, idempotencyKey, file, waits: wait })
}

/** Options that would be passed over in silence otherwise. */
const assertNot = (options: Partial<IssueOptions>, names: readonly (keyof IssueOptions)[], why: string): void => {
  for (const name of names) {
    if (options[name] === undefined) continue
    throw new Failure('usage', `${flagOf(name)} ${why}.`)
  }
}

const forRequests = ['idempotencyKey'] as const
const ofNewRequests = ['keyType', 'commonName'] as const
const ofFolders = ['reuseKey', 'keyMode', 'owner', 'exec', 'shell', ...ofNewRequests] as const
const forOwnKeys = ['renewBefore', 'orders', 'daemon', ...ofFolders] as const
const ofOneOrder = ['profile', 'validity', 'name', 'dns', 'ip', 'uri', 'email', 'out', ...ofFolders] as const

const withAskOptions = (command: Command): Command =>
  withRestOptions(command)
    .option('--profile <name>', 'by whose rules')
    .option('--name <name...>', 'what it is for: a DNS name, address, URI or mailbox, told apart by its form')
    .option('--dns <name...>', 'the same with the kind said; with --csr, all of these replace the names in the request')
    .option('--ip <address...>', 'the same, for addresses')
    .option('--uri <uri...>', 'for URIs')
    .option('--email <address...>', 'for mailboxes')
    .option('--common-name <text>', 'for the few profiles that want one')
    .option('--validity <duration>', 'such as 24h or 30d')
    .option('--key-type <type>', `p-256 by default; ${keyTypeNames.slice(1).join(', ')}`)
    .option('--csr <file>', 'PEM certificate request, made elsewhere; - reads standard input', theOnlyOne)

/** The last would be asked for alone, and the others passed over in silence. */
const theOnlyOne = (file: string, before: string | undefined): string => {
  if (before === undefined) return file
  throw new Failure('usage', '--csr names one request; chancery issue-many asks for several.')
}

/** Without a request, one by a key that is thrown away. */
const bodyOf = async (options: AskOptions): Promise<object> => {
  if (options.csr !== undefined) {
    assertNot(options, ofNewRequests, 'goes with a request that is made here, so without --csr')
    return bodyOfRequest(options, options.csr)
  }
  const order = readOrder(options)
  return bodyFor(order, requestFor(order, await newKey(order.keyKind)))
}

const bodyOfRequest = async (options: OrderOptions, csr: string): Promise<RequestBody> => {
  const { profile, validity } = options
  if (profile === undefined) throw new Failure('usage', 'Name the profile by --profile.')
  const names = readNames(options)
  const byKind = Object.groupBy(names, ({ kind }) => kind)
  const told = Object.entries(byKind).map(([kind, list]) => [kind, list.map(({ value }) => value)])
  const text = (await readGiven(csr)).toString('latin1')
  assertNoKey(text, csr)
  return {
    csr: text,
    profile,
    ...(validity !== undefined && { validity }),
    ...(names.length > 0 && { names: Object.fromEntries(told) }),
  }
}
