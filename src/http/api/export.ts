/**
 * Exports: everything that a search finds, as one stream of any length. It is read page by page, each a statement of its own,
 * the next one while the client takes what it was sent, and no further; it holds exactly what was on the roll at one size.
 *
 * The last line is the statement of the export: what it is of, its filter, its range, what it is bound to, and how many rows
 * there were. A stream without it is not whole, whatever was the matter, and its connection ends without the last chunk.
 */
import { Readable } from 'node:stream'
import { setImmediate as nextRound } from 'node:timers/promises'

import type { FastifyReply, FastifyRequest } from 'fastify'

import type { Caller } from '../../ca/access/access.ts'
import type { Access, Searchable } from '../../ca/access/access-log.ts'
import type { Bounds, OpenWalk, Page, Range, Walk } from '../../ca/records.ts'
import { isProblem, Problem } from '../../errors.ts'
import { authorise, callerOf, readsAll, shownBy } from '../auth.ts'
import { withinDeadline } from '../deadline.ts'
import type { HttpDeps } from '../deps.ts'
import type { App } from '../fastify.ts'
import { type Column, csvLine, lineOf, type Row } from './csv.ts'
import { contentTypes, type ListType } from './page.ts'

export interface Searched<F extends object, T> {
  readonly records: Searchable
  readonly filter: F
  readonly open: OpenWalk<F, T>
  readonly view: (item: T) => Row
  /** The same as JSON, where that is there already. */
  readonly json?: (item: T) => string
  readonly columns: readonly Column[]
  /** What is told beside the rows: on the first page, and at the end of an export. */
  readonly beside?: (range: Range) => Promise<Beside>
}

export interface Beside {
  /** Refusals that were counted and not kept. */
  readonly counted?: number
  /** What came before is past retention, and gone. */
  readonly keptFrom: string
}

export interface Exports {
  /** Throws before the answer begins where the export cannot be opened or recorded. */
  send<F extends object, T>(
    request: FastifyRequest,
    reply: FastifyReply,
    asked: ExportAsked<F, T>,
  ): Promise<FastifyReply>
}

type Shown<F extends object, T> = Pick<Searched<F, T>, 'view' | 'json' | 'columns' | 'beside'>

interface ExportAsked<F extends object, T> {
  readonly searched: Shown<F, T>
  readonly type: ListType
  readonly access: AccessAsked
  readonly open: () => Promise<Walk<T>>
}

/** What an export says of itself in its last line. */
export interface Statement {
  readonly complete: true
  readonly records: Access['records']
  readonly filter: Readonly<Record<string, string>>
  readonly range: { readonly from: number | string | null; readonly before: number | string }
  readonly boundTo: { readonly size: number; readonly time: string; readonly root?: string }
  readonly rows: number
  readonly counted?: number
  readonly keptFrom?: string
}

export const openExports = (app: App, deps: HttpDeps): Exports => {
  const underWay = new Set<Readable>()
  const takePlace = openPlaces()
  const ends = new Set<Promise<void>>()
  let isStopping = false
  // What is cut off can be asked for again; waiting for a slow client would hold up the stop.
  const cutOff = (stream: Readable): void =>
    void stream.destroy(new Problem('service.stopping', 'The export was cut off.'))
  app.addHook('preClose', async () => {
    isStopping = true
    for (const stream of underWay) cutOff(stream)
  })
  // No connection waits for the end of one that nobody reads.
  app.addHook('onClose', async () => void (await Promise.all(ends)))
  return {
    send: async (request, reply, asked) => {
      const place: Place = { waitsSince: undefined, giveUp: () => {} }
      // Who asks for its fields alone takes nobody's place.
      const isHead = request.method === 'HEAD'
      const leave = isHead ? () => {} : takePlace(callerOf(request), place)
      let isUnderWay = false
      try {
        const walk = await withinDeadline(asked.open())
        reply.type(contentTypes[asked.type])
        // Of any length, as the answer to GET is: its fields say none (RFC 9110 8.6).
        if (isHead) return reply.send(Readable.from([]))
        const began = { ...asked.access, size: walk.bounds.size }
        // Whoever takes everything away is on record first, or gets nothing.
        const id = await withinDeadline(record(deps, request, { ...began, act: 'began', rows: null, export: null }))
        const first = await withinDeadline(walk.page(pageRows))
        const root = await deps.rootAt?.(walk.bounds.size)
        const end = openEnd(deps, request, { ends, began: { ...began, export: id } })
        const told = { began, end, walk, first, root, place }
        // A page without a find may take longer than a connection may be silent.
        request.raw.socket.setTimeout(idleMs)
        const stream = Readable.from(piecesOf(deps, request, asked, told), {
          objectMode: false,
          highWaterMark: pieceSize,
        })
        underWay.add(stream)
        isUnderWay = true
        place.giveUp = () =>
          void stream.destroy(
            new Problem('overload.queue', 'Its client took nothing, and another asked for its place.'),
          )
        stream.once('close', () => {
          underWay.delete(stream)
          leave()
          // Nothing of it was asked for before its client went away, or we stopped.
          void end('broke', 0)
        })
        // It was let in before that.
        if (isStopping) cutOff(stream)
        return reply.send(stream)
      } finally {
        if (!isUnderWay) leave()
      }
    },
  }
}

interface Place {
  /** performance.now() since when its client has taken nothing of what is there for it; undefined while it does. */
  waitsSince: number | undefined
  giveUp: () => void
}

/**
 * An export lasts as long as whoever reads it likes. Those who export their own certificates alone never have all places, nor one
 * of them two: an auditor would be kept out by anybody. Nor do they keep each other out by reading an octet a minute.
 */
const openPlaces = (): ((caller: Caller, place: Place) => () => void) => {
  const taken = new Set<Place>()
  const own = new Map<string, Place>()
  return (caller, place) => {
    const { principal } = caller
    const isOwn = !readsAll(caller)
    const leave = (name: string, left: Place): void => {
      taken.delete(left)
      if (own.get(name) === left) own.delete(name)
    }
    if (isOwn && own.has(principal)) throw noPlace('An export of yours is')
    if (isOwn && own.size >= mostOfOwn) {
      const slow = [...own].find(
        ([, { waitsSince = performance.now() }]) => performance.now() - waitsSince > patienceMs,
      )
      if (!slow) throw noPlace(`${own.size} exports of other principals are`)
      leave(...slow)
      slow[1].giveUp()
    }
    if (taken.size >= mostExports) throw noPlace(`${taken.size} exports are`)
    taken.add(place)
    if (isOwn) own.set(principal, place)
    return () => leave(principal, place)
  }
}

const noPlace = (what: string): Problem => new Problem('overload.queue', `${what} under way.`, { retryAfter: 5 })

interface Told<T> {
  readonly began: Omit<Access, 'act' | 'rows' | 'export'>
  readonly end: End
  readonly walk: Walk<T>
  readonly first: Page<T>
  readonly root: string | undefined
  readonly place: Place
}

async function* piecesOf<F extends object, T>(
  deps: HttpDeps,
  request: FastifyRequest,
  { searched, type }: ExportAsked<F, T>,
  { began, end, walk, first, root, place }: Told<T>,
): AsyncGenerator<Buffer> {
  const admit = openAdmission(deps, request)
  const form = forms[type]
  const lineOf = lineIn(type, searched)
  let rows = 0
  try {
    const head = form.head(searched.columns)
    if (head !== '') yield Buffer.from(head)
    for (let page = first; ; ) {
      for (const piece of encoded(page.items, lineOf)) {
        place.waitsSince = performance.now()
        yield piece
        place.waitsSince = undefined
        await nextRound()
      }
      rows += page.items.length
      if (page.next === undefined) break
      await admit()
      page = await walk.page(pageRows, { ahead: true })
    }
    const { records, filter } = began
    const boundTo = { ...boundsView(walk.bounds), ...(root !== undefined && { root }) }
    const beside = await searched.beside?.(walk.range)
    await end('completed', rows)
    const range = rangeView(walk.range)
    const last = form.end({ complete: true, records, filter, range, boundTo, rows, ...beside }, searched.columns)
    // Until all of it is taken.
    place.waitsSince = performance.now()
    yield Buffer.from(last)
  } catch (error) {
    const code = isProblem(error) ? error.code : undefined
    deps.log.warn({ event: 'export.broke', id: request.id, code, rows, err: error }, 'an export broke off')
    throw error
  } finally {
    await end('broke', rows)
  }
}

/** Puts the end of an export on record: the first that is told, and never another one. */
type End = (act: 'completed' | 'broke', rows: number) => Promise<void>

interface Ending {
  readonly began: Omit<Access, 'act' | 'rows'>
  /** Those that are being put on record. */
  readonly ends: Set<Promise<void>>
}

const openEnd = (deps: HttpDeps, request: FastifyRequest, { began, ends }: Ending): End => {
  let isOver = false
  return async (act, rows) => {
    if (isOver) return
    isOver = true
    const noted = record(deps, request, { ...began, act, rows }).then(
      () => {},
      (error: unknown) =>
        deps.log.error(
          { event: 'access.unrecorded', id: request.id, act, rows, err: error },
          'the end of an export is not on record',
        ),
    )
    ends.add(noted)
    await noted
    ends.delete(noted)
  }
}

/** A row as it stands in an export. */
const lineIn = <F extends object, T>(type: ListType, { view, json, columns }: Shown<F, T>): ((item: T) => string) =>
  json && type !== 'text/csv' ? (item) => `${json(item)}\n` : (item) => forms[type].line(view(item), columns)

/**
 * Rows as octets, in pieces that no other request has to wait for long. Each line is written where it will be sent from:
 * a text of all of them would be put together first, and then encoded (measured: a tenth of an export).
 */
function* encoded<T>(items: readonly T[], lineOf: (item: T) => string): Generator<Buffer> {
  let piece = Buffer.allocUnsafeSlow(pieceSize)
  let size = 0
  for (const item of items) {
    const line = lineOf(item)
    if (size + line.length * mostOctetsOfUnit > piece.length) {
      if (size > 0) yield piece.subarray(0, size)
      piece = Buffer.allocUnsafeSlow(Math.max(pieceSize, line.length * mostOctetsOfUnit))
      size = 0
    }
    size += piece.write(line, size)
  }
  if (size > 0) yield piece.subarray(0, size)
}

/** A requester's export of its own certificates is nobody else's matter. */
const record = async ({ accesses }: HttpDeps, request: FastifyRequest, access: Access): Promise<string | null> =>
  readsAll(callerOf(request)) ? accesses.record(access) : null

/** An export goes on only while what was shown is good and its grants last; asking again costs a look into memory mostly. */
const openAdmission = ({ identities }: HttpDeps, request: FastifyRequest): (() => Promise<void>) => {
  const { access: rule = 'open' } = request.routeOptions.config
  const before = readsAll(callerOf(request))
  let asked = performance.now()
  return async () => {
    if (performance.now() - asked < trustMs) return
    asked = performance.now()
    const caller = await authorise(identities, rule, shownBy(request), true)
    if (!caller || readsAll(caller) !== before) throw new Problem('auth.forbidden', 'The grant was taken back.')
  }
}

interface Form {
  readonly head: (columns: readonly Column[]) => string
  readonly line: (row: Row, columns: readonly Column[]) => string
  /** `columns` tells how many cells a line of CSV has. */
  readonly end: (statement: Statement, columns: readonly Column[]) => string
}

const json: Form = {
  head: () => '',
  line: (row) => `${JSON.stringify(row)}\n`,
  end: (statement) => `${JSON.stringify({ end: statement })}\n`,
}

export const forms: Readonly<Record<ListType, Form>> = {
  'application/json': json,
  'application/x-ndjson': json,
  'text/csv': {
    head: (columns) => lineOf(columns.map(({ name }) => name)),
    line: csvLine,
    end: (statement, columns) =>
      lineOf(columns.map((_, i) => (i === 0 ? 'end' : i === 1 ? JSON.stringify(statement) : ''))),
  },
}

export const formats: Readonly<Record<ListType, Access['format']>> = {
  'application/json': 'json',
  'application/x-ndjson': 'ndjson',
  'text/csv': 'csv',
}

export const boundsView = ({ size, time }: Bounds) => ({ size, time: time.toISOString() })

export type AccessAsked = Omit<Access, 'act' | 'size' | 'rows' | 'export'>

const rangeView = ({ from, before }: Range): Statement['range'] => ({
  from: shown(from),
  before: shown(before) as number | string,
})
const shown = (bound: number | Date | null): number | string | null =>
  bound instanceof Date ? bound.toISOString() : bound

const pageRows = 1_000
/** At once, in one instance. */
const mostExports = 4
/** Of those, by whoever reads nothing but its own. */
const mostOfOwn = 2
/** Octets. */
const pieceSize = 65_536
/** UTF-8, of a unit of UTF-16. */
const mostOctetsOfUnit = 3
/**
 * Milliseconds in which nothing is taken, where another is kept out by it. The system tells of room in its buffer only once a third of
 * it is free, which is a megabyte: whoever reads 200 KiB a second seems to take nothing for five seconds (measured).
 */
const patienceMs = 30_000
/** Milliseconds without an octet taken. */
const idleMs = 60_000
/** Milliseconds. Together with the two seconds that a token is remembered, this is how long a revoked one may go on. */
const trustMs = 1_000
