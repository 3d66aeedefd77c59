/** `chancery issue-many`: certificates for many requests that were made elsewhere, in as few calls as the service takes. */
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import type { Command } from 'commander'

import { hasEnded } from '../client/issue/approval.ts'
import { callBatch, callsOf, mayBeDone } from '../client/issue/calls.ts'
import { sweepChains } from '../client/issue/chain-file.ts'
import { type Ended, issuedOrNot, rowText, sumText, withoutAnswer } from '../client/issue/ended.ts'
import { type RequestFile, readRequestFiles } from '../client/issue/requests.ts'
import type { Client } from '../client/rest.ts'
import { Failure, type FailureKind } from '../lib/failure.ts'
import { visible } from '../lib/output.ts'
import { openStderrProgress } from '../lib/progress.ts'
import { openRest, type RestOptions, withRestOptions } from './rest.ts'

interface ManyOptions extends RestOptions {
  readonly profile: string
  readonly out: string
  readonly validity?: string
  readonly idempotencyKey?: string
}

export const addIssueManyCommand = (program: Command): void => {
  withRestOptions(
    program
      .command('issue-many <csr...>')
      .description('issue a certificate for each of many requests (PEM files), in as few calls as can be'),
  )
    .requiredOption('--profile <name>', 'by whose rules')
    .requiredOption('--out <path>', 'the folder for the chains, leaf first: web.csr gets web.pem there')
    .option('--validity <duration>', 'such as 24h or 30d')
    .option('--idempotency-key <text>', 'the same command, run again with it, gets the same certificates')
    .action(async (files: readonly string[], options: ManyOptions) => {
      const { profile, validity, idempotencyKey: said } = options
      if (said !== undefined) assertKeyText(said)
      const requests = await readRequestFiles(files, options.out)
      await sweepChains(requests.map(({ out }) => out))
      const { client, out } = await openRest(options)
      const key = said ?? randomUUID()
      const ask = { profile, ...(validity !== undefined && { validity }) }
      const items = requests.map((request) => {
        const { csr, digest } = request
        return { request, body: JSON.stringify({ csr, ...ask, idempotencyKey: `${key}.${digest}` }) }
      })
      const { ended, broken } = await issueAll(items, client)
      for (const { row } of ended)
        for (const { field, reason } of row.notes)
          process.stderr.write(`note: ${visible(`${row.file}: ${field} ${reason}`)}\n`)
      out.show(
        ended.map(({ row }) => row),
        rowText(ended),
      )
      const kind = kindOf(ended)
      if (kind !== undefined)
        throw new Failure(kind, [...sumText(ended, broken), again(key, said), ...anew(ended)].join('\n'))
    })
}

interface Many {
  readonly ended: readonly Ended[]
  /** Of a call that came to nothing as a whole; no other was made after it. */
  readonly broken: Failure | undefined
}

/**
 * Of those that come too soon for a limit of requests, alone or with their whole call, as many are done as the limit lets: they are
 * sent again within a second, as long as that brings any further. Whoever sent all of them again would have the limit spent on those
 * that are done; so it is with those that the answer had no room for, behind others that are refused at length.
 */
const issueAll = async (items: readonly Item[], client: Client): Promise<Many> => {
  const progress = items.length > manyRequests ? openStderrProgress() : undefined
  const ends = new Map<RequestFile, Ended>()
  let done = 0
  const note = (request: RequestFile, ended: Ended): void => {
    ends.set(request, ended)
    if (!isTooSoon(ended.row.problem)) done += 1
    progress?.update(done, items.length)
  }
  progress?.update(0, items.length)
  let broken: Failure | undefined
  try {
    for (let open = items; ; ) {
      broken = await sendAll(open, client, note)
      const left = open.filter(({ request }) => {
        const ended = ends.get(request)
        return ended === undefined || isTooSoon(ended.row.problem)
      })
      if ((broken && !isTooSoon(broken.problem)) || left.length === 0 || left.length === open.length) break
      open = left
      await sleep(limitedMs)
    }
  } finally {
    progress?.end()
  }
  return { ended: items.map(({ request }) => ends.get(request) ?? withoutAnswer(request)), broken }
}

interface Item {
  readonly request: RequestFile
  readonly body: string
}

/**
 * What has come is written before the next call is made, so that one that breaks takes nothing of those before it. Resolves to
 * why one came to nothing as a whole: none is made after it.
 */
const sendAll = async (
  items: readonly Item[],
  client: Client,
  note: (request: RequestFile, ended: Ended) => void,
): Promise<Failure | undefined> => {
  let sent = 0
  for (const call of callsOf(items.map(({ body }) => body))) {
    const those = items.slice(sent, sent + call.count)
    sent += call.count
    const told = await callBatch(client, call).catch(asFailure)
    if (told instanceof Failure) {
      for (const { request } of those) note(request, withoutAnswer(request, told, mayBeDone(told)))
      return told
    }
    for (const [i, { request }] of those.entries())
      note(request, await issuedOrNot(request, told[i] as (typeof told)[0]))
  }
  return undefined
}

const isTooSoon = (problem: object | null | undefined): boolean => soonOver.has(codeOf({ problem }))

const codeOf = ({ problem }: { readonly problem?: object | null | undefined }): string =>
  String((problem as { readonly code?: unknown } | null | undefined)?.code)

const asFailure = (error: unknown): Failure => {
  if (error instanceof Failure) return error
  throw error
}

const kindOf = (ended: readonly Ended[]): FailureKind | undefined =>
  precedence.find((kind) => ended.some((one) => one.kind === kind))

/** Each key is the text, a dot and a digest in hexadecimal; the service takes 128 characters. */
const assertKeyText = (text: string): void => {
  if (/^[\x21-\x7e]{1,63}$/.test(text)) return
  throw new Failure(
    'usage',
    '--idempotency-key is 1 to 63 visible ASCII characters: what tells each request from the others is added to it.',
  )
}

const again = (key: string, said: string | undefined): string =>
  said === undefined
    ? `To try again without a second certificate for any: the same command with --idempotency-key ${key}`
    : 'With its --idempotency-key the same command may be run again: what was issued is found again, and nothing is issued twice.'

/** Under its key a request that has ended is told of for good. */
const anew = (ended: readonly Ended[]): readonly string[] =>
  ended.some(({ row }) => hasEnded(codeOf(row)))
    ? [
        'To ask anew for those whose approval has ended: chancery issue-many of these files alone, with another --idempotency-key or none.',
      ]
    : []

/**
 * Which exit code, where requests ended differently (docs/commands.md): what has to be mended before it is of any use to run
 * the command again, then that it is, then what no running again will change.
 */
const precedence: readonly FailureKind[] = ['failed', 'usage', 'denied', 'later', 'conflict', 'missing', 'refused']
/** From here on it may take long, and how far it is is told. */
const manyRequests = 100
/** Limits that leave room for what is left as soon as what was sent before is done with. */
const soonOver: ReadonlySet<string> = new Set(['limit.requests', 'limit.room'])
/** Milliseconds. The first of them is one of each second. */
const limitedMs = 1_000
