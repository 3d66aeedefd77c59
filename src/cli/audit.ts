/** `chancery audit`: what auditors search, as a table that fits the terminal, or as an export that says whether it is whole. */
import { randomBytes } from 'node:crypto'
import { open, realpath, rename, rm, stat } from 'node:fs/promises'
import { finished } from 'node:stream/promises'

import type { Command } from 'commander'

import type { Client } from '../client/rest.ts'
import { Failure } from '../lib/failure.ts'
import { formatTable } from '../lib/output.ts'
import { countText, openStderrProgress, type Progress } from '../lib/progress.ts'
import { type EntryRow, eventColumns, eventRow, searchText } from './event-text.ts'
import { assertReplaceable, endOctets, type Replacement } from './output-file.ts'
import {
  type Beside,
  type First,
  openRest,
  type Pages,
  parseCount,
  type RestOptions,
  readPages,
  tellBeside,
  tellMore,
  withRestOptions,
} from './rest.ts'

interface AuditOptions extends RestOptions {
  readonly limit?: string
  readonly all?: boolean
  readonly count?: boolean
  readonly csv?: boolean
  readonly ndjson?: boolean
  readonly out?: string
  readonly [filter: string]: string | boolean | undefined
}

type Row = Readonly<Record<string, unknown>>

/** One kind of records: what it can be searched by, and the cells of a line. */
interface Kind {
  readonly about: string
  readonly filters: Readonly<Record<`--${string}`, string>>
  readonly columns: readonly string[]
  readonly lineOf: (row: Row) => Row
}

const times = { '--after <time>': 'since then', '--before <time>': 'before then' } as const

/** Of what is on the roll. */
const at = { '--at <size>': 'as of a roll of this size' } as const

const certificateFilters = {
  '--name <name>': 'exact, which finds wildcard names over it too, or *.suffix for every DNS name below it',
  '--serial <serial>': '32 hexadecimal digits, perhaps with colons',
  '--row <serial>': 'the certificate with this serial, and all that it was renewed from and to',
  '--subject <dn>': 'exact, as RFC 4514 writes it',
  '--profile <name>': 'by which profile',
  '--principal <name>': 'to whom',
  '--issuer <name>': 'by which issuer',
  '--status <status>': 'valid, expired or revoked',
  '--key <sha256>': 'SHA-256 of the SubjectPublicKeyInfo, in hexadecimal',
  '--issued-after <time>': 'issued since then, such as 2026-01-01T00:00:00Z',
  '--issued-before <time>': 'issued before then',
  '--expires-after <time>': 'that expire then or later',
  '--expires-before <time>': 'that expire before then',
  '--revoked-after <time>': 'revoked since then',
  '--revoked-before <time>': 'revoked before then',
  '--origin-namespace <name>': 'asked for on behalf of this namespace',
  '--origin-user <name>': 'on behalf of this user',
  '--origin-object <uid>': 'for the object of this UID',
} as const

const kinds = {
  certificates: {
    about: 'certificates that were issued, newest first',
    filters: {
      ...certificateFilters,
      ...at,
    },
    columns: ['serial', 'status', 'profile', 'principal', 'issuedAt', 'notAfter', 'names', 'subject'],
    lineOf: withProfileText,
  },
  events: {
    about: 'the events of the roll, oldest first',
    filters: {
      '--type <type>': 'such as certificate.issued',
      '--serial <serial>': 'of this certificate',
      '--principal <name>': 'that name this principal, or that it has done',
      '--by <name>': 'that it has done',
      ...times,
      '--from-index <n>': 'from this place on',
      '--before-index <n>': 'before this place',
      ...at,
    },
    columns: eventColumns,
    lineOf: (row) => eventRow(row as unknown as EntryRow),
  },
  refusals: {
    about: 'what was turned down, newest first',
    filters: {
      '--principal <name>': 'who had asked',
      '--profile <name>': 'for which profile',
      '--code <code>': 'such as san.forbidden',
      '--digest <sha256>': 'SHA-256 of the DER of the request, or of what was sent where that was not read',
      ...times,
    },
    columns: ['at', 'principal', 'profile', 'code', 'detail'],
    lineOf: (row) => row,
  },
  accesses: {
    about: 'who has searched and exported records, newest first',
    filters: {
      '--principal <name>': 'who has',
      '--act <act>': 'searched, began, completed or broke',
      '--records <kind>': 'certificates, events, refusals or accesses',
      ...times,
    },
    columns: ['at', 'principal', 'act', 'records', 'format', 'rows', 'size', 'filter'],
    lineOf: (row) => ({ ...row, filter: searchText(row['filter'] as Readonly<Record<string, string>>) }),
  },
} as const satisfies Readonly<Record<string, Kind>>

export const addAuditCommand = (program: Command): void => {
  const audit = program.command('audit').description('search and export the records')
  for (const name of Object.keys(kinds) as (keyof typeof kinds)[]) addSearchCommand(audit, name, name)
}

/** Under any name: certificates are searched by `chancery certificate search` as well. */
export const addSearchCommand = (parent: Command, verb: string, name: keyof typeof kinds): void => {
  const kind: Kind = kinds[name]
  const command = withRestOptions(parent.command(verb).description(kind.about))
  for (const [flag, text] of Object.entries(kind.filters)) command.option(flag, text)
  command
    .option('--limit <n>', `how many at most, ${usual} by default`)
    .option('--all', 'all there are')
    .option('--count', 'only how many there are')
    .option('--ndjson', 'export everything, one JSON value a line')
    .option('--csv', 'export everything as CSV')
    .option('--out <file>', 'write the export there once it is whole, in place of another one; - is standard output')
    .action((options: AuditOptions) => audited(name, kind, options))
}

const audited = async (name: string, kind: Kind, options: AuditOptions): Promise<void> => {
  const form = formOf(options)
  const { client, out } = await openRest(options)
  const query = queryOf(kind, options)
  const path = `/v1/${name}`
  if (form !== undefined)
    return exportRecords({ client, path, query, form, name, ...(await openDestination(form, options)) })
  if (options.count) {
    const { counted, keptFrom, ...count } = await countOf(client, path, query)
    out.show(count, `${aboutText(count)} ${name}`)
    return tellBeside({ counted, keptFrom }, query['after'])
  }
  const most = options.all ? Number.POSITIVE_INFINITY : parseCount(options.limit ?? usual)
  const pages = { client, path, query, most }
  const found = await (process.stderr.isTTY ? watched(pages, openStderrProgress) : readPages<Row>(pages))
  const { rows } = found
  // Some terminals say 0, which is that they do not say.
  const room = (process.stdout.isTTY && process.stdout.columns) || undefined
  out.show(rows, formatTable(rows.map(kind.lineOf), kind.columns, room))
  tellMore(found, { ways: '--limit, --all, --csv and --ndjson' })
  tellBeside(found, query['after'])
}

/** Where people wait for it: of more than a page, how far it has come. */
export const watched = async (pages: Pages, openProgress: () => Progress): Promise<First<Row>> => {
  const { client, path, query, most } = pages
  let progress: Progress | undefined
  let total = 0
  const came = async (rows: number, goesOn: boolean): Promise<void> => {
    if (goesOn && !progress) {
      total = Math.min(most, (await countOf(client, path, query)).rows)
      progress = openProgress()
    }
    // An estimate may have been too low.
    progress?.update(rows, goesOn ? Math.max(total, rows + 1) : rows)
  }
  try {
    return await readPages<Row>({ ...pages, came })
  } finally {
    progress?.end()
  }
}

/** Undefined for a table. Throws a usage failure for what does not go together. */
const formOf = ({ csv, ndjson, json, out, all, count, limit }: AuditOptions): Form | undefined => {
  const chosen = [csv && 'csv', ndjson && 'ndjson', json && 'json'].filter((one) => one !== undefined)
  if (chosen.length > 1) throw new Failure('usage', `Choose one of ${chosen.map((one) => `--${one}`).join(' and ')}.`)
  const form = csv ? 'csv' : ndjson ? 'ndjson' : undefined
  if (out !== undefined && !form) throw new Failure('usage', '--out goes with --csv or --ndjson.')
  if (form && (all || count || limit !== undefined))
    throw new Failure('usage', `--${form} exports everything; leave out --all, --count and --limit.`)
  return form
}

/** The options that the API takes as filters, under the same names. */
const queryOf = ({ filters }: Kind, options: AuditOptions): Readonly<Record<string, string | undefined>> => {
  const names = Object.keys(filters).map((flag) =>
    flag
      .split(' ', 1)
      .join()
      .slice(2)
      .replaceAll(/-(.)/g, (_, letter: string) => letter.toUpperCase()),
  )
  return Object.fromEntries(names.map((name) => [name, options[name] as string | undefined]))
}

interface CountAnswer extends Beside {
  readonly rows: number
  readonly exact: boolean
}

const countOf = async (client: Client, path: string, query: ExportAsked['query']): Promise<CountAnswer> => {
  const answer = await client.call('GET', path, { query: { ...query, limit: '1', count: 'true' } })
  const { count, counted, keptFrom } = answer.json<{ count: CountAnswer } & Beside>()
  return { ...count, counted, keptFrom }
}

const aboutText = ({ rows, exact }: CountAnswer): string => `${exact ? '' : 'about '}${countText(rows)}`

// Exports -----------------------------------------------------------------------------------------------------------------

type Form = 'csv' | 'ndjson'

/** Where an export goes: standard output, a pipe or a device, or a file that has its name only once it is whole. */
interface Destination {
  readonly sink: NodeJS.WritableStream
  readonly partial?: string
  readonly file?: string
  /** Where the file is, or is to be: behind a link, where it leads. */
  readonly place?: string
  readonly progress: Progress | undefined
}

export interface ExportAsked extends Destination {
  readonly client: Client
  readonly path: string
  readonly query: Readonly<Record<string, string | undefined>>
  readonly form: Form
  readonly name: string
}

const openDestination = async (form: Form, { out }: AuditOptions): Promise<Destination> => {
  if (out === undefined || out === '-') return { sink: process.stdout, progress: undefined }
  if (out === '') throw new Failure('usage', 'Name a file by --out.')
  const progress = openStderrProgress()
  // What cannot be looked at cannot be written either, which is told then.
  const found = await stat(out).catch(() => undefined)
  if (found?.isDirectory()) throw new Failure('usage', `${out} is a folder; name a file in it by --out.`)
  // A pipe or a device is written to, never replaced by a file.
  if (found !== undefined && !found.isFile())
    return { sink: (await open(out, 'w').catch(unwritable(out))).createWriteStream(), progress }
  await assertReplaceable(out, replacements[form])
  // A link is followed, so that it stays one. Two exports to one file have a draft each.
  const place = found === undefined ? out : await realpath(out)
  const partial = `${place}.${randomBytes(4).toString('hex')}.partial`
  const handle = await open(partial, 'wx', 0o600).catch(unwritable(partial))
  return { sink: handle.createWriteStream({ flush: true }), partial, file: out, place, progress }
}

const unwritable =
  (path: string) =>
  ({ code }: NodeJS.ErrnoException): never => {
    throw new Failure('usage', `${path} cannot be written (${code}).`)
  }

/** Throws a failure unless everything came, its last line included. */
const exportRecords = async (asked: ExportAsked): Promise<void> => {
  const { client, path, query, form, name, sink, partial, file, place, progress } = asked
  const tail = openTail()
  let statement: Statement | undefined
  // Told where it is written.
  sink.on('error', () => {})
  try {
    const { rows: total } = progress ? await countOf(client, path, query) : { rows: 0 }
    await client.stream(path, { query, accept: accepts[form] }, async (chunk) => {
      tail.add(chunk)
      const rows = tail.lines - beside[form]
      // An estimate may have been too low: how many they are is known once they are there.
      if (rows > 0 && rows !== total) progress?.update(rows, Math.max(total, rows + 1))
      await written(sink, chunk)
    })
    statement = statements[form](tail.text())
    if (statement?.complete && statement.rows > 0) progress?.update(statement.rows, statement.rows)
  } catch (error) {
    if (partial !== undefined) sink.end()
    const isEmpty = partial === undefined || tail.lines === 0
    if (partial !== undefined && isEmpty) await rm(partial, { force: true })
    const came = isEmpty ? '' : ` ${partial} holds what came, and is not whole.`
    if (error instanceof Failure && came !== '') throw new Failure(error.kind, `${error.message}${came}`, error.problem)
    throw error
  } finally {
    progress?.end()
  }
  if (sink !== process.stdout) {
    sink.end()
    await finished(sink).catch((error: Error) => {
      throw unwritten(error)
    })
  }
  if (statement?.complete !== true)
    throw new Failure(
      'later',
      `The export broke off: it lacks its last line.${partial === undefined ? '' : ` ${partial} is not whole.`}`,
    )
  if (partial === undefined || place === undefined) return tellBeside(statement, query['after'])
  await rename(partial, place).catch(({ code }: NodeJS.ErrnoException) => {
    throw new Failure('usage', `${file} cannot be replaced (${code}); ${partial} holds the export, which is whole.`)
  })
  const { size, root } = statement.boundTo
  process.stderr.write(
    `${file} holds ${countText(statement.rows)} ${name}, as of a roll of ${countText(size)} entries${root === undefined ? '' : ` with the root ${root}`}.\n`,
  )
  tellBeside(statement, query['after'])
}

/** Resolves when there is room for more. */
const written = (sink: NodeJS.WritableStream, chunk: Buffer): Promise<void> =>
  new Promise((resolve, reject) => {
    sink.write(chunk, (error) => {
      if (error) reject(unwritten(error))
      else resolve()
    })
  })

const unwritten = ({ message }: Error): Failure => new Failure('usage', `The export cannot be written: ${message}.`)

interface Statement extends Beside {
  readonly complete: boolean
  readonly rows: number
  readonly boundTo: { readonly size: number; readonly root?: string }
}

/** The last few thousand octets of what passes, and how many lines there were. */
const openTail = () => {
  let lines = 0
  let kept: Buffer = Buffer.alloc(0)
  return {
    add: (chunk: Buffer): void => {
      for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, at + 1)) lines += 1
      kept = chunk.length >= endOctets ? chunk.subarray(-endOctets) : Buffer.concat([kept, chunk]).subarray(-endOctets)
    },
    text: (): string => kept.toString(),
    get lines(): number {
      return lines
    },
  }
}

/** What the last line says; undefined where it is another one. */
const statements: Readonly<Record<Form, (tail: string) => Statement | undefined>> = {
  ndjson: (tail) => {
    const line = /(?:^|\n)(\{"end":.*\})\n$/.exec(tail)?.[1]
    return line === undefined ? undefined : (JSON.parse(line) as { readonly end: Statement }).end
  },
  csv: (tail) => {
    const cell = /(?:^|\r\n)"end","((?:[^"\r\n]|"")*)"(?:,"")*\r\n$/.exec(tail)?.[1]
    return cell === undefined ? undefined : (JSON.parse(cell.replaceAll('""', '"')) as Statement)
  },
}

/** Rows, where nobody says how many. */
const usual = '100'

/** Lines that are no rows: the last one, and the names of the columns. */
const beside: Readonly<Record<Form, number>> = { csv: 2, ndjson: 1 }

/** Whole or not, as of its last line. */
const replacements: Readonly<Record<Form, Replacement>> = {
  csv: { isOne: ({ last }) => statements.csv(last) !== undefined, what: 'export in CSV' },
  ndjson: { isOne: ({ last }) => statements.ndjson(last) !== undefined, what: 'export in NDJSON' },
}

const accepts: Readonly<Record<Form, string>> = { csv: 'text/csv', ndjson: 'application/x-ndjson' }

export function withProfileText(row: Row): Row {
  const { name, version } = row['profile'] as { readonly name: string; readonly version: number }
  return { ...row, profile: `${name}@${version}` }
}
