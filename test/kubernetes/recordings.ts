/** The recorded exchanges, and what they tell of the state of the cluster before each of them. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

import type { Release } from './catalogue.ts'
import { isTree, nameOf, namespaceOf, type Tree, textAt, treesAt, uidOf, type Value, versionOf } from './values.ts'

export const folder = join(import.meta.dirname, '../fixtures/kubernetes')

export interface Exchange {
  /** Folder and file without what both have: `csr/01-create`. */
  readonly name: string
  readonly release: Release
  readonly actor: string
  readonly request: {
    readonly method: string
    readonly path: string
    readonly query: Readonly<Record<string, string>>
    readonly headers: Readonly<Record<string, string>>
    readonly body: Value
  }
  readonly response: {
    readonly status: number
    readonly headers: Readonly<Record<string, string>>
    readonly body: Value
  }
  /** Of a watch: what was sent, in its order. */
  readonly events: readonly Tree[] | undefined
  /** Whether the server ended the watch; else the client did. */
  readonly ends: boolean
}

/** One state of one object, or its end. */
export interface Sighting {
  readonly plural: string
  readonly group: string
  readonly version: number
  readonly object: Tree
  readonly gone: boolean
  /** Where in the order of the recordings it was seen. */
  readonly from: Exchange
}

export const loadExchanges = (release: Release): readonly Exchange[] =>
  readdirSync(join(folder, `v${release}`))
    .sort()
    .flatMap((part) =>
      readdirSync(join(folder, `v${release}`, part))
        .filter((file) => file.endsWith('.json'))
        .sort()
        .map((file) => loadExchange(release, join(part, file))),
    )

const loadExchange = (release: Release, file: string): Exchange => {
  const path = join(folder, `v${release}`, file)
  const { actor, request, response, watch } = JSON.parse(readFileSync(path, 'utf8'))
  return {
    name: file.replace(/\.json$/, ''),
    release,
    actor,
    request,
    response,
    events: watch === undefined ? undefined : linesOf(path.replace(/\.json$/, '.ndjson')),
    ends: textAt(watch, 'end').startsWith('server ended'),
  }
}

const linesOf = (path: string): readonly Tree[] =>
  readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))

/** All states of objects that any recording shows. */
export const sightingsIn = (exchanges: readonly Exchange[]): readonly Sighting[] =>
  exchanges.flatMap((from) => {
    const { group, plural } = placeOf(from)
    const { body } = from.response
    const seen = (object: Tree, gone = false): Sighting[] =>
      uidOf(object) === '' || versionOf(object) === 0
        ? []
        : [{ plural, group, version: versionOf(object), object, gone, from }]
    const events = (from.events ?? []).flatMap(({ type, object }) =>
      isTree(object) && type !== 'BOOKMARK' && type !== 'ERROR' ? seen(object, type === 'DELETED') : [],
    )
    if (!isTree(body) || body['kind'] === 'Status') return events
    if (!textAt(body, 'kind').endsWith('List')) return seen(body)
    return treesAt(body, 'items').flatMap((item) => (item['kind'] === 'PartialObjectMetadata' ? [] : seen(item)))
  })

export const placeOf = ({ request }: Exchange): { readonly group: string; readonly plural: string } => {
  const parts = request.path.split('/').slice(1)
  const group = parts.shift() === 'api' ? '' : (parts.shift() ?? '')
  parts.shift()
  if (parts[0] === 'namespaces' && parts.length > 2) parts.splice(0, 2)
  return { group, plural: parts[0] ?? '' }
}

/** The version of the whole store just before each exchange, from what it and its neighbours in the folder tell. */
export const versionsBefore = (exchanges: readonly Exchange[]): ReadonlyMap<Exchange, number> => {
  const versions = new Map<Exchange, number>()
  for (const part of new Set(exchanges.map(folderOf))) {
    const within = exchanges.filter((one) => folderOf(one) === part)
    let reached = 0
    const shown = new Set<string>()
    for (const [index, exchange] of within.entries()) {
      const own = ownVersion(exchange, shown)
      const later = within.slice(index).map((one) => ownVersion(one, new Set()))
      const next = later.find((version) => version !== undefined) ?? 0
      const sent = sentVersion(exchange)
      const known = sent > 0 && exchange.response.status !== 409 ? sent : Math.max(reached, sent)
      versions.set(exchange, own ?? (known > 0 ? known : Math.max(next, 1)))
      const { body } = exchange.response
      if (own !== undefined && exchange.response.status < 400 && !madeLater.has(exchange.name)) {
        reached = Math.max(reached, own, isTree(body) ? versionOf(body) : 0)
        if (isTree(body)) shown.add(`${uidOf(body)} ${versionOf(body)}`)
      }
    }
  }
  return versions
}

/** Recorded after those that follow them by name. */
const madeLater = new Set(['csr/41b-drop-failed-alone', 'csr/41d-change-failed-fresh'])

const folderOf = ({ name }: Exchange): string => name.split('/')[0] ?? ''

/** What the exchange itself tells: a write comes one before what it made, unless that was there already. */
const ownVersion = ({ request, response, events }: Exchange, shown: ReadonlySet<string>): number | undefined => {
  const { body } = response
  if (events !== undefined) return Number(request.query['resourceVersion'] ?? '0') || bookmarkedIn(events)
  const [, current] = /current: (\d+)$/.exec(textAt(body, 'message')) ?? []
  if (current !== undefined) return Number(current)
  const version = isTree(body) ? versionOf(body) : 0
  if (version === 0 || !isTree(body)) return undefined
  const isWrite = request.method !== 'GET' && !shown.has(`${uidOf(body)} ${version}`)
  return isWrite ? version - 1 : version
}

const bookmarkedIn = (events: readonly Tree[]): number | undefined =>
  versionOf(events.find(({ type }) => type === 'BOOKMARK')?.['object']) || undefined

const sentVersion = ({ request }: Exchange): number => (isTree(request.body) ? versionOf(request.body) : 0)

/** The objects that there were at a version, as far as anything shows them. */
export const stateAt = (sightings: readonly Sighting[], version: number): readonly Sighting[] => {
  const last = new Map<string, Sighting>()
  for (const sighting of sightings) {
    if (sighting.version > version) continue
    const key = [sighting.group, sighting.plural, namespaceOf(sighting.object), nameOf(sighting.object)].join('/')
    const before = last.get(key)
    if (before === undefined || before.version <= sighting.version) last.set(key, sighting)
  }
  return [...last.values()].filter(({ gone }) => !gone).sort((one, other) => one.version - other.version)
}
