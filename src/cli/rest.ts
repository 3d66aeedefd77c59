/** What every command over REST shares: its options, its client, its output. */
import type { Command } from 'commander'

import { type Client, openClient, segment } from '../client/rest.ts'
import { Failure } from '../lib/failure.ts'
import { type Output, openOutput } from '../lib/output.ts'
import { countText } from '../lib/progress.ts'

export interface RestOptions {
  readonly server?: string
  readonly ca?: string
  readonly tokenFile?: string
  readonly context?: string
  readonly json?: boolean
  /** For calls that anyone may make. */
  readonly anonymous?: boolean
  /** A token that is not there is missed only when a call needs it. */
  readonly tokenLater?: boolean
}

export interface Rest {
  readonly client: Client
  readonly out: Output
}

export const withRestOptions = (command: Command): Command =>
  command
    .option('--server <url>', 'https://host:port of the API (CHANCERY_URL)')
    .option('--ca <file>', 'trust anchor for its certificate (CHANCERY_CACERT)')
    .option('--token-file <file>', 'file with a bearer token (CHANCERY_TOKEN_FILE)')
    .option('--context <name>', 'of the context file (CHANCERY_CONTEXT)')
    .option('--json', 'print JSON for machines')

/** Opens both from the options that `withRestOptions` has added. */
export const openRest = async (options: RestOptions): Promise<Rest> => ({
  client: await openClient(options, process.env),
  out: openOutput(options.json === true),
})

interface Listed<Row> {
  readonly about: string
  readonly path: string
  readonly columns: readonly string[]
  /** What else a line has. */
  readonly more?: (row: Row) => object
}

/** `list`, of what each principal has. */
export const addListByPrincipal = <Row extends Readonly<Record<string, unknown>> = Readonly<Record<string, unknown>>>(
  parent: Command,
  { about, path, columns, more }: Listed<Row>,
): void => {
  withRestOptions(parent.command('list').description(about))
    .option('--principal <name>', 'only those of one principal')
    .action(async ({ principal, ...options }: RestOptions & { readonly principal?: string }) => {
      const { client, out } = await openRest(options)
      const { items } = (await client.call('GET', path, { query: { principal } })).json<{ items: Row[] }>()
      out.table(
        items.map((row) => ({ ...row, ...more?.(row) })),
        columns,
      )
    })
}

/** `revoke <id>`. */
export const addRevokeById = (parent: Command, about: string, path: string, done: (id: string) => string): void => {
  withRestOptions(parent.command('revoke <id>').description(about)).action(async (id: string, options: RestOptions) => {
    const { client, out } = await openRest(options)
    await client.call('DELETE', `${path}/${segment(id)}`)
    out.show({ id, revoked: true }, done(id))
  })
}

/** Every page of a list, up to `most` rows. */
export const readAll = async <Row = Readonly<Record<string, unknown>>>(
  client: Client,
  path: string,
  query: Readonly<Record<string, string | undefined>>,
  most: number,
): Promise<readonly Row[]> => (await readFirst<Row>(client, path, query, most)).rows

export interface First<Row> extends Beside {
  readonly rows: readonly Row[]
  readonly areMore: boolean
}

/** Says as well whether there are more. */
export const readFirst = <Row = Readonly<Record<string, unknown>>>(
  client: Client,
  path: string,
  query: Readonly<Record<string, string | undefined>>,
  most: number,
): Promise<First<Row>> => readPages({ client, path, query, most })

export interface Pages {
  readonly client: Client
  readonly path: string
  readonly query: Readonly<Record<string, string | undefined>>
  readonly most: number
  /** Told after each page how many rows have come, and whether another page does. */
  readonly came?: (rows: number, goesOn: boolean) => Promise<void>
}

export const readPages = async <Row = Readonly<Record<string, unknown>>>({
  client,
  path,
  query,
  most,
  came,
}: Pages): Promise<First<Row>> => {
  const rows: Row[] = []
  let beside: Beside | undefined
  let cursor: string | undefined
  do {
    const limit = String(Math.min(1_000, most - rows.length))
    const answer = await client.call('GET', path, { query: { ...query, limit, cursor } })
    const page = answer.json<{ items: Row[]; next?: string } & Beside>()
    beside ??= page
    rows.push(...page.items)
    cursor = page.next
    await came?.(rows.length, cursor !== undefined && rows.length < most)
  } while (cursor !== undefined && rows.length < most)
  const { counted, keptFrom } = beside
  return { rows, areMore: cursor !== undefined, counted, keptFrom }
}

/** What the first page tells beside its rows. */
export interface Beside {
  readonly counted?: number | undefined
  readonly keptFrom?: string | undefined
}

/** Tells people, beside the rows, that there are more. */
export const tellMore = (
  { rows, areMore }: { readonly rows: readonly unknown[]; readonly areMore: boolean },
  { order = 'first', ways = '--limit' }: { readonly order?: 'first' | 'newest'; readonly ways?: string } = {},
): void => {
  const these = rows.length === 1 ? `This is the ${order}` : `These are the ${order} ${rows.length}`
  if (areMore) process.stderr.write(`${these}, and there are more: see ${ways}.\n`)
}

/** Tells people, beside the rows, of refusals that have none, and of a span whose beginning is gone. */
export const tellBeside = ({ counted = 0, keptFrom }: Beside, after?: string): void => {
  if (keptFrom !== undefined && after !== undefined && Date.parse(after) < Date.parse(keptFrom))
    process.stderr.write(`What came before ${keptFrom} is past retention, and gone.\n`)
  if (counted > 0)
    process.stderr.write(
      `${countText(counted)} more were turned down in these minutes, and are counted only: beyond CHANCERY_REFUSALS_PER_MINUTE, whatever they asked for.\n`,
    )
}

/** A whole number on the command line. Throws a usage failure. */
export const parseCount = (text: string): number => {
  if (!/^[1-9][0-9]{0,6}$/.test(text)) throw new Failure('usage', `${text} is not a whole number within 1 and 9999999.`)
  return Number(text)
}
