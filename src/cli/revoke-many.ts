/** `chancery revoke-many` and `revocations`: what a search finds, revoked at once, after its plan was looked at. */
import { setTimeout as sleep } from 'node:timers/promises'

import type { Command } from 'commander'

import { type Answer, askedMs, secondsOf } from '../client/rejected.ts'
import { type Client, segment } from '../client/rest.ts'
import { Failure } from '../lib/failure.ts'
import { formatTable, visible } from '../lib/output.ts'
import { countText, durationText, openStderrProgress, type Progress } from '../lib/progress.ts'
import { type Answers, withAnswers } from './answers.ts'
import { searchText } from './event-text.ts'
import { openRest, parseCount, type Rest, type RestOptions, readFirst, tellMore, withRestOptions } from './rest.ts'

interface RevokeManyOptions extends RestOptions {
  readonly reason: string
  readonly invalidityDate?: string
  readonly digest?: string
  readonly asOf?: string
  readonly yes?: boolean
  readonly follow: boolean
  readonly [filter: string]: string | boolean | undefined
}

interface Skipped {
  readonly expired: number
  readonly revoked: number
}

interface Shares {
  readonly items: readonly { readonly name: string; readonly count: number }[]
  readonly others: { readonly names: number; readonly count: number }
}

export interface PlanAnswer {
  readonly digest: string
  readonly asOf: string
  readonly search: Readonly<Record<string, string>>
  readonly reason: string
  readonly invalidityDate?: string
  readonly count: number
  readonly byProfile: Shares
  readonly byPrincipal: Shares
  readonly byIssuer: Shares
  readonly crlGrowth: readonly {
    readonly issuer: string
    readonly entries: number
    readonly octets: number
    readonly shards: number
  }[]
  readonly skipped: Skipped
}

export interface OrderAnswer {
  readonly digest: string
  readonly state: 'running' | 'done'
  readonly search: Readonly<Record<string, string>>
  readonly reason: string
  readonly by: string
  readonly index: number
  readonly total: number
  readonly revoked: number
  readonly skipped: Skipped
  readonly orderedAt: string
  readonly startedAt: string | null
  readonly finishedAt: string | null
}

export const addRevokeManyCommand = (program: Command): void => {
  const many = withRestOptions(
    program
      .command('revoke-many')
      .description('plan to revoke all certificates that a search finds, and order it once the plan was looked at'),
  )
  for (const [flag, text] of Object.entries(filters)) many.option(`${flag} <value>`, text)
  many
    .requiredOption('--reason <reason>', 'as of revoke: keyCompromise, superseded, certificateHold, …')
    .option('--invalidity-date <time>', 'since when their keys may have been in wrong hands')
    .option('--digest <digest>', 'order the plan with this digest, without asking')
    .option('--as-of <bounds>', 'with --digest: as the plan says it')
    .option('--yes', 'order whatever the plan is, without asking: for scripts')
    .option('--no-follow', 'do not wait until it is carried out')
    .action((options: RevokeManyOptions) =>
      withAnswers(async (answers) => revokeMany(options, { ...(await openRest(options)), answers, ...terminal() })),
    )

  const revocations = program.command('revocations').description('orders to revoke many')
  withRestOptions(revocations.command('list').description('list them, newest first'))
    .option('--limit <n>', 'how many at most', '100')
    .action(async (options: RestOptions & { readonly limit: string }) => {
      const { client, out } = await openRest(options)
      const found = await readFirst<OrderAnswer>(client, path, {}, parseCount(options.limit))
      const columns = ['digest', 'state', 'revoked', 'total', 'reason', 'by', 'orderedAt', 'search']
      const told = found.rows.map((row) => ({ ...row, search: searchText(row.search) }))
      out.show(found.rows, formatTable(told, columns))
      tellMore(found, { order: 'newest' })
    })
  withRestOptions(revocations.command('show <digest>').description('show how far one has come'))
    .option('--follow', 'wait until it is carried out')
    .action(async (digest: string, options: RestOptions & { readonly follow?: boolean }) => {
      const rest = await openRest(options)
      const order = options.follow
        ? await follow(rest.client, digest, terminal())
        : (await readOrder(rest.client, digest)).json<OrderAnswer>()
      rest.out.show(order, reportText(order))
    })
}

export interface Terminal {
  readonly progress: () => Progress
  /** To standard error. */
  readonly tell: (text: string) => void
}

export interface RevokeManyDeps extends Rest, Terminal {
  /** Undefined: nobody is there to be asked. */
  readonly answers: Pick<Answers, 'match'> | undefined
}

export const revokeMany = async (options: RevokeManyOptions, deps: RevokeManyDeps): Promise<void> => {
  const { client, out } = deps
  const body = bodyOf(options)
  // With --yes it would be passed over, and what was issued since revoked as well.
  if (options.asOf !== undefined && options.digest === undefined)
    throw new Failure('usage', '--as-of says as of when the plan of --digest was made: give both, or neither.')
  const plan = options.digest === undefined ? await planOf(client, body) : undefined
  const json = options.json === true
  // Whoever is asked, or lets a script go on, sees first what it is about.
  if (plan && json && !options.yes) return out.show(plan, '')
  if (plan) (json ? deps.tell : (text: string) => out.show(plan, text))(`${planText(plan).join('\n')}\n`)
  const approved = plan ? await approve(plan, options, deps) : { digest: options.digest, asOf: options.asOf }
  if (!approved) return
  const ordered = (await client.call('POST', path, { body: { ...body, ...approved } })).json<OrderAnswer>()
  if (!options.follow) return out.show(ordered, orderedText(ordered))
  deps.tell(`${orderedText(ordered)}\n`)
  const order = await follow(client, ordered.digest, deps)
  out.show(order, reportText(order))
}

/** Digest and bounds of what is to be done; undefined where nobody has said so. */
const approve = async (plan: PlanAnswer, { yes }: RevokeManyOptions, { answers, tell }: RevokeManyDeps) => {
  const { digest, asOf, count } = plan
  if (count === 0) return undefined
  if (yes) return { digest, asOf }
  if (!answers) {
    tell(`Nothing was ordered. To order exactly this, add --digest ${digest} --as-of ${asOf}\n`)
    return undefined
  }
  const digits = digest.slice(0, 8)
  tell(`Type the first 8 digits of the digest to revoke ${certificatesText(count)}: `)
  if (!(await answers.match(digits, () => tell('That is not it. Once more: '))))
    throw new Failure('refused', 'Not confirmed. Nothing was ordered.')
  return { digest, asOf }
}

/** The order goes on without us: an instance that is away for a while is no reason to stop looking. */
const follow = async (client: Client, digest: string, { progress: open, tell }: Terminal): Promise<OrderAnswer> => {
  const progress = open()
  let [heard, asked] = [performance.now(), 0]
  try {
    for (;;) {
      const answer = await readOrder(client, digest).catch((error: unknown) => {
        if (!(error instanceof Failure && error.kind === 'later') || performance.now() - heard > patienceMs) throw error
        asked = askedMs(error.retryAfter)
        return undefined
      })
      if (answer) {
        const order = answer.json<OrderAnswer>()
        asked = askedMs(secondsOf(answer.headers['retry-after']))
        // What it asked us to wait is no silence.
        heard = performance.now() + asked
        const { expired, revoked } = order.skipped
        progress.update(order.revoked + expired + revoked, order.total)
        if (order.state === 'done') return order
      } else progress.tell('The service does not answer; trying again. The order is kept.')
      await sleep(Math.max(answer ? pollMs : pollMs * 4, asked))
    }
  } catch (error) {
    tell(`\nThe order is kept, and is carried out: chancery revocations show ${digest} --follow\n`)
    throw error
  } finally {
    progress.end()
  }
}

const planOf = async (client: Client, body: object): Promise<PlanAnswer> =>
  (await client.call('POST', path, { body })).json<PlanAnswer>()

const readOrder = (client: Client, digest: string): Promise<Answer> => client.call('GET', `${path}/${segment(digest)}`)

const bodyOf = (options: RevokeManyOptions): object => {
  const search = Object.fromEntries(
    Object.keys(filters)
      .map((flag) => flag.slice(2).replaceAll(/-(.)/g, (_, letter: string) => letter.toUpperCase()))
      .filter((field) => options[field] !== undefined)
      .map((field) => [field, options[field]]),
  )
  if (Object.keys(search).length === 0)
    throw new Failure('usage', `Say which certificates, by at least one of ${Object.keys(filters).join(', ')}.`)
  const { reason, invalidityDate } = options
  return { search, reason, ...(invalidityDate !== undefined && { invalidityDate }) }
}

/** The plan in sentences and tables. */
export const planText = (plan: PlanAnswer): readonly string[] => {
  const { count, search, reason, invalidityDate, skipped, crlGrowth } = plan
  if (count === 0) return [`There is nothing to revoke: ${visible(searchText(search))}.`, ...skippedText(skipped)]
  const since = invalidityDate === undefined ? '' : `, invalid since ${invalidityDate}`
  return [
    `${certificatesText(count)} would be revoked as ${reason}${since}: ${visible(searchText(search))}.`,
    ...skippedText(skipped),
    '',
    ...sharesText('profile', plan.byProfile),
    ...sharesText('principal', plan.byPrincipal),
    ...sharesText('issuer', plan.byIssuer),
    ...crlGrowth.map(
      ({ issuer, entries, octets, shards }) =>
        `The lists of ${issuer} grow by ${countText(entries)} entries, ${sizeText(octets)} in ${shardsText(shards)}.`,
    ),
    ...(reason === 'keyCompromise' ? ['No certificate will be issued for any of their keys again.'] : []),
    `Digest ${plan.digest}`,
    `As of  ${plan.asOf}`,
  ]
}

const skippedText = ({ expired, revoked }: Skipped): readonly string[] =>
  expired + revoked === 0
    ? []
    : [
        `Left alone: ${countText(expired)} that have expired, ${countText(revoked)} revoked already, in a way that this reason does not replace.`,
      ]

const sharesText = (what: string, { items, others }: Shares): readonly string[] => [
  formatTable(
    items.map(({ name, count }) => ({ [what]: name, certificates: countText(count) })),
    [what, 'certificates'],
  ).trimEnd(),
  ...(others.names === 0 ? [] : [`and ${countText(others.count)} of ${countText(others.names)} others`]),
  '',
]

const orderedText = ({ total, reason, by, digest }: OrderAnswer): string =>
  `Ordered by ${by}: ${certificatesText(total)} to be revoked as ${reason}, whatever happens here (${digest}).`

/** What became of an order, in sentences. */
export const reportText = (order: OrderAnswer): string => {
  const { revoked, total, reason, skipped, startedAt, finishedAt } = order
  const seconds = startedAt && finishedAt ? (Date.parse(finishedAt) - Date.parse(startedAt)) / 1_000 : undefined
  const passed = skipped.expired + skipped.revoked
  return [
    `${countText(revoked)} of ${countText(total)} certificates are revoked as ${reason}: ${visible(searchText(order.search))}.`,
    ...(passed === 0
      ? []
      : [
          `${countText(passed)} had changed and were passed by: ${countText(skipped.expired)} expired, ${countText(skipped.revoked)} revoked otherwise.`,
        ]),
    `Ordered by ${order.by} at ${order.orderedAt}, entry ${order.index} of the roll.`,
    finishedAt === null
      ? startedAt === null
        ? 'No instance has begun yet.'
        : `Begun at ${startedAt}.`
      : `Done at ${finishedAt}${seconds ? `, ${durationText(seconds)} after it was begun, ${countText(Math.round(revoked / seconds))}/s` : ''}.`,
  ].join('\n')
}

const certificatesText = (count: number): string => `${countText(count)} certificate${count === 1 ? '' : 's'}`

const shardsText = (count: number): string => (count === 1 ? 'one shard' : `${countText(count)} shards`)

const sizeText = (octets: number): string =>
  octets < 1_000_000 ? `${Math.ceil(octets / 1_000)} kB` : `${(octets / 1_000_000).toFixed(1)} MB`

const terminal = (): Terminal => ({
  progress: openStderrProgress,
  tell: (text) => process.stderr.write(text),
})

/** As the API names them. */
const filters: Readonly<Record<`--${string}`, string>> = {
  '--profile': 'of this profile',
  '--name': 'with this very name (dns:*.suffix is a wildcard name), or *.suffix for every DNS name below it',
  '--principal': 'issued to this principal',
  '--issuer': 'by this issuer',
  '--row': 'the certificate with this serial, and all that it was renewed from and to',
  '--key': 'for this key: SHA-256 of the SubjectPublicKeyInfo, in hexadecimal',
  '--issued-after': 'issued since then',
  '--issued-before': 'issued before then',
  '--expires-after': 'that expire then or later',
  '--expires-before': 'that expire before then',
  '--origin-namespace': 'asked for on behalf of this namespace',
  '--origin-user': 'on behalf of this user',
  '--origin-object': 'for the object of this UID',
}

const path = '/v1/revocations'
const pollMs = 500
/** For an instance to come back, or for another to be reached at the same address. */
const patienceMs = 60_000
