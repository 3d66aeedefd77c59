/** `chancery issue-many`: certificates for many requests that were made elsewhere, in as few calls as the service takes. */
import { randomUUID } from 'node:crypto'

import type { Command } from 'commander'

import type { Client } from './client.ts'
import { Failure, type FailureKind } from './failure.ts'
import { callBatch, callsOf, mayBeDone } from './issue/calls.ts'
import { sweepChains } from './issue/chain-file.ts'
import { type Ended, issuedOrNot, rowText, sumText, withoutAnswer } from './issue/ended.ts'
import { type RequestFile, readRequestFiles } from './issue/requests.ts'
import { visible } from './output.ts'
import { openStderrProgress } from './progress.ts'
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
      const bodies = requests.map(({ csr, digest }) =>
        JSON.stringify({ csr, ...ask, idempotencyKey: `${key}.${digest}` }),
      )
      const { ended, broken } = await issueAll(requests, bodies, client)
      for (const { row } of ended)
        for (const { field, reason } of row.notes)
          process.stderr.write(`note: ${visible(`${row.file}: ${field} ${reason}`)}\n`)
      out.show(
        ended.map(({ row }) => row),
        rowText(ended),
      )
      const kind = kindOf(ended)
      if (kind !== undefined) throw new Failure(kind, [...sumText(ended, broken), again(key, said)].join('\n'))
    })
}

interface Many {
  readonly ended: readonly Ended[]
  /** Of a call that came to nothing as a whole; no other was made after it. */
  readonly broken: Failure | undefined
}

/** What has come is written before the next call is made, so that one that breaks takes nothing of those before it. */
const issueAll = async (requests: readonly RequestFile[], bodies: readonly string[], client: Client): Promise<Many> => {
  const calls = callsOf(bodies)
  const progress = requests.length > manyRequests ? openStderrProgress() : undefined
  const ended: Ended[] = []
  progress?.update(0, requests.length)
  try {
    for (const call of calls) {
      const [sent, rest] = [ended.length, ended.length + call.count]
      const told = await callBatch(client, call).catch(asFailure)
      if (told instanceof Failure) {
        ended.push(...requests.slice(sent, rest).map((request) => withoutAnswer(request, told, mayBeDone(told))))
        ended.push(...requests.slice(rest).map((request) => withoutAnswer(request)))
        return { ended, broken: told }
      }
      for (const [i, one] of told.entries()) {
        ended.push(await issuedOrNot(requests[sent + i] as RequestFile, one))
        progress?.update(ended.length, requests.length)
      }
    }
  } finally {
    progress?.end()
  }
  return { ended, broken: undefined }
}

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

/**
 * Which exit code, where requests ended differently (docs/commands.md): what has to be mended before it is of any use to run
 * the command again, then that it is, then what no running again will change.
 */
const precedence: readonly FailureKind[] = ['failed', 'usage', 'denied', 'later', 'conflict', 'missing', 'refused']
/** From here on it may take long, and how far it is is told. */
const manyRequests = 100
