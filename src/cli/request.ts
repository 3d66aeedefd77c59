/** `chancery request`: what waits for people, shown as it would be issued, and approved as it was shown. */

import { hash } from 'node:crypto'

import type { Command } from 'commander'

import { obstacleText, type PlanAnswer, type RequestAnswer } from '../client/approval-request.ts'
import { type Client, segment } from '../client/rest.ts'
import { canonicalJson } from '../lib/canonical-json.ts'
import { Failure } from '../lib/failure.ts'
import { ascii, formatRows, formatTable, plain, visible } from '../lib/output.ts'
import { exactDurationText } from '../lib/progress.ts'
import type { Origin } from '../policy/origin.ts'
import { formatSubject, isAttributeType, type Subject } from '../x509/subject.ts'
import { type Answers, withAnswers } from './answers.ts'
import { originLine } from './event-text.ts'
import { openRest, parseCount, type Rest, type RestOptions, readFirst, tellMore, withRestOptions } from './rest.ts'

interface ListOptions extends RestOptions {
  readonly state?: string
  readonly profile?: string
  readonly limit: string
}

interface DecideOptions extends RestOptions {
  readonly reason: string
  readonly digest?: string
}

export const addRequestCommand = (program: Command): void => {
  const request = program.command('request').description('requests that people must approve')

  withRestOptions(request.command('list').description('list those that you may see, newest first'))
    .option('--state <state>', 'pending, approved, issued, rejected, withdrawn, expired or failed')
    .option('--profile <name>', 'of this profile')
    .option('--limit <n>', 'how many at most', '100')
    .action(async ({ state, profile, limit, ...options }: ListOptions) => {
      const { client, out } = await openRest(options)
      const found = await readFirst<RequestAnswer>(client, path, { state, profile }, parseCount(limit))
      out.show(found.rows, formatTable(found.rows.map(rowOf), columns))
      tellMore(found, { order: 'newest' })
    })

  withRestOptions(request.command('show <id>').description('show what would be issued, and who has said what')).action(
    async (id: string, options: RestOptions) => {
      const { client, out } = await openRest(options)
      const found = await readRequest(client, id)
      const unknown = unknownText(found)
      if (unknown !== undefined) throw new Failure('usage', unknown)
      out.show(found, requestText(found))
    },
  )

  withRestOptions(request.command('withdraw <id>').description('withdraw your own, for good'))
    .requiredOption('--reason <text>', 'why, for those who read the roll')
    .action(async (id: string, { reason, ...options }: RestOptions & { readonly reason: string }) => {
      const { client, out } = await openRest(options)
      const answer = await client.call('POST', `${path}/${segment(id)}/withdrawal`, { body: { reason } })
      out.show(answer.json<RequestAnswer>(), `${id} is withdrawn.`)
    })

  for (const [act, { description }] of Object.entries(acts) as [Act, (typeof acts)[Act]][])
    withRestOptions(request.command(`${act} <id>`).description(description))
      .requiredOption('--reason <text>', 'why, for those who read the roll')
      .option('--digest <digest>', 'of the plan that you were shown before, without being asked')
      .action((id: string, options: DecideOptions) =>
        withAnswers(async (answers) => {
          const tell = (text: string) => process.stderr.write(text)
          await decide({ act, id, ...options }, { ...(await openRest(options)), answers, tell })
        }),
      )
}

type Act = keyof typeof acts

const acts = {
  approve: {
    description: 'approve exactly what is shown; by the last approval that it takes, it is issued',
    path: 'approval',
    done: 'approved',
    open: ['pending'],
  },
  reject: { description: 'reject it, for good', path: 'rejection', done: 'rejected', open: ['pending', 'approved'] },
} as const

export interface DecideDeps extends Rest {
  /** Undefined: nobody is there to be asked. */
  readonly answers: Pick<Answers, 'match'> | undefined
  /** To standard error. */
  readonly tell: (text: string) => void
}

/**
 * Nobody decides blindly: the digest that is sent is that of the plan that was shown, now or before. What cannot be shown
 * whole can be rejected all the same.
 */
export const decide = async (
  { act, id, reason, digest }: { readonly act: Act; readonly id: string; reason: string; digest?: string },
  deps: DecideDeps,
): Promise<void> => {
  const { client, out, tell } = deps
  const found = await readRequest(client, id)
  const unknown = unknownText(found)
  if (unknown !== undefined && act === 'approve') throw new Failure('usage', unknown)
  tell(`${requestText(found)}\n${unknown === undefined ? '' : `${unknown}\n`}\n`)
  if (digest !== undefined && digest !== found.digest)
    throw new Failure('conflict', `This is not the plan with the digest ${digest}. Nothing was ${acts[act].done}.`)
  if (digest === undefined) await confirm(act, found, deps)
  const body = { digest: found.digest, reason }
  const answer = await client.call('POST', `${path}/${segment(id)}/${acts[act].path}`, { body })
  const decided = answer.json<RequestAnswer>()
  out.show(decided, decidedText(act, decided))
  if (!wanted[act].includes(decided.state)) throw new Failure('conflict', '')
}

const confirm = async (
  act: Act,
  { digest, id, state }: RequestAnswer,
  { answers, tell }: DecideDeps,
): Promise<void> => {
  const { done, open } = acts[act]
  if (!open.some((one) => one === state))
    throw new Failure('conflict', `The request is ${state}, and not open any more. Nothing was ${done}.`)
  if (!answers) throw new Failure('refused', `Nothing was ${done}. To ${act} exactly this, add --digest ${digest}`)
  tell(`Type the first 8 digits of the digest to ${act} ${plain(id)}: `)
  if (await answers.match(digest.slice(0, 8), () => tell('That is not it. Once more: '))) return
  throw new Failure('refused', `Not confirmed. Nothing was ${done}.`)
}

/** Throws where the digest is not that of the plan: then what is shown is not what would be approved. */
const readRequest = async (client: Client, id: string): Promise<RequestAnswer> => {
  const found = (await client.call('GET', `${path}/${segment(id)}`)).json<RequestAnswer>()
  const missing = Object.keys(planMembers).filter(
    (member) => !mayBeAbsent.has(member) && !Object.hasOwn(found.plan ?? {}, member),
  )
  if (missing.length > 0) throw new Failure('failed', `The server tells no ${missing.join(', ')} of the plan of ${id}.`)
  if (hash('sha256', canonicalJson(found.plan)) === found.digest) return found
  throw new Failure('failed', `The server tells a digest that is not that of the plan of ${id}; tell its operator.`)
}

/** The digest covers everything that the server sends, and what is shown is what this command knows of. */
const unknownText = ({ id, plan }: RequestAnswer): string | undefined => {
  const types = plan.subject.map(({ type }) => type).filter((type) => !isAttributeType(type))
  const unknown = [...unknownIn(plan, planMembers), ...types.map((type) => `subject.${type}`)]
  if (unknown.length === 0) return undefined
  const names = visible(unknown.join(', '))
  return `The plan of ${id} has what this command cannot show: ${names}. The server is newer: update the command to decide about it.`
}

/** `true`: a value, or a list of them; `whole`: whatever it is; else the members of an object, or of each in a list. */
type Members = { readonly [member: string]: Shown }
type Shown = true | 'whole' | Members

const unknownIn = (value: unknown, members: Shown, at = ''): readonly string[] => {
  if (members === 'whole') return []
  if (Array.isArray(value)) return [...new Set(value.flatMap((item) => unknownIn(item, members, at)))]
  if (typeof value !== 'object' || value === null) return []
  if (members === true) return [at]
  return Object.entries(value).flatMap(([name, inner]) => {
    const place = at === '' ? name : `${at}.${name}`
    const known = Object.hasOwn(members, name) ? members[name] : undefined
    return known === undefined ? [place] : unknownIn(inner, known, place)
  })
}

/** All that `requestText` shows. */
const planMembers = {
  authority: true,
  extendedKeyUsage: true,
  issuer: true,
  key: true,
  keyType: true,
  keyUsage: true,
  names: { kind: true, value: true },
  origin: 'whole',
  profile: { name: true, version: true, sha256: true },
  revocation: true,
  subject: { type: true, value: true },
  validity: true,
} as const satisfies Readonly<Record<keyof PlanAnswer, Shown>>

/** Of what is not asked for on behalf of another. */
const mayBeAbsent: ReadonlySet<string> = new Set(['origin'])

// Texts ---------------------------------------------------------------------------------------------------------------

/** The whole plan, and who has said what. */
export const requestText = (request: RequestAnswer): string => {
  const { plan, approvals, required, end } = request
  const lines: (readonly [string, string])[] = [
    ['request', `${request.id}, ${request.state}${request.serial === null ? '' : `: serial ${request.serial}`}`],
    ['asked by', `${request.principal} at ${request.createdAt}, expires at ${request.expiresAt}`],
    ...planRows(plan),
    ['digest', request.digest],
    ['approvals', `${approvals.length} of ${required}`],
    ...approvals.map(({ principal, at, reason }) => ['', `${principal} at ${at}: ${reason}`] as const),
    ...(request.obstacle ? [['kept by', `${obstacleText(request.obstacle)} at ${request.obstacle.at}`] as const] : []),
    ...(end?.reason ? [['ended', `at ${end.at}${end.by ? ` by ${end.by}` : ''}: ${end.reason}`] as const] : []),
  ]
  return formatRows(lines.map(([label, value]) => [label, plain(value)]))
}

/** What is approved. */
const planRows = (plan: PlanAnswer): readonly (readonly [string, string])[] => {
  const rows: (readonly [string, string])[] = [
    ...plan.names.map(({ kind, value }) => ['name', `${kind}:${value}`] as const),
    ...(plan.names.length === 0 ? [['name', 'none'] as const] : []),
    ['subject', subjectText(plan.subject) || 'none'],
    ...originLines(plan.origin),
    ['valid for', `${exactDurationText(plan.validity)} from when it is issued`],
    ['key', `${plan.keyType}, SHA-256 ${plan.key}`],
    ['usages', [...plan.keyUsage, ...plan.extendedKeyUsage].join(', ')],
    ['revocation', typeof plan.revocation === 'string' ? plan.revocation : plan.revocation.join(', ')],
    ['profile', `${plan.profile.name}@${plan.profile.version}, SHA-256 ${plan.profile.sha256}`],
    ['issuer', `${plan.issuer} of authority ${plan.authority}`],
  ]
  return rows.map(([label, value]) => [label, ascii(value)])
}

const subjectText = (subject: Subject): string =>
  subject.every(({ type }) => isAttributeType(type)) ? formatSubject(subject) : JSON.stringify(subject)

/** All of it: it is part of what is approved. */
const originLines = (origin: Origin | undefined): readonly (readonly [string, string])[] =>
  origin
    ? [
        ['on behalf', `of ${originLine(origin)}`],
        ['', JSON.stringify(origin)],
      ]
    : []

/** What is said where it stands so, after somebody has decided: others may have, meanwhile. */
const standings: { readonly [S in RequestAnswer['state']]: (request: RequestAnswer) => string } = {
  pending: ({ approvals, required }) => `has ${approvals.length} of ${required} approvals.`,
  approved: ({ obstacle }) =>
    `is approved, and is issued as soon as that can be done${obstacle ? `: ${obstacleText(obstacle)}` : '.'}`,
  issued: ({ serial }) => `is issued: serial ${serial}.`,
  rejected: (request) => `was rejected, and nothing was issued${whyText(request)}`,
  withdrawn: (request) => `was withdrawn, and nothing was issued${whyText(request)}`,
  expired: () => 'has expired, and nothing was issued.',
  failed: (request) => `has failed, and nothing was issued${whyText(request)}`,
}

const whyText = ({ end }: RequestAnswer): string => (end?.reason ? `: ${end.reason}` : '.')

/** The states that show that it came to what was wanted. */
const wanted: { readonly [A in Act]: readonly RequestAnswer['state'][] } = {
  approve: ['pending', 'approved', 'issued'],
  reject: ['rejected'],
}

const decidedText = (act: Act, request: RequestAnswer): string => {
  const { id, state } = request
  return plain(act === 'reject' && state === 'rejected' ? `${id} is rejected.` : `${id} ${standings[state](request)}`)
}

const rowOf = ({ plan, approvals, required, ...request }: RequestAnswer) => ({
  ...request,
  names: plan.names,
  profile: `${request.profile.name}@${request.profile.version}`,
  approvals: `${approvals.length} of ${required}`,
})

const columns = ['id', 'state', 'principal', 'profile', 'approvals', 'names', 'expiresAt']
const path = '/v1/requests'
