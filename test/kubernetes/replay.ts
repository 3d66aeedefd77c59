/** One recorded exchange against a new double in the state in which the recordings show the cluster before it. */
import { type Double, openDouble } from './double.ts'
import type { User } from './people.ts'
import type { Timers } from './reads.ts'
import { type Exchange, placeOf } from './recordings.ts'
import { stages, tokens } from './replay-stages.ts'
import { elsewhere, type Memory, setUp } from './replay-state.ts'
import type { Asked } from './server.ts'
import { at, isTree, put, type Tree, textAt, treeAt, treesAt, uidOf, type Value, versionOf } from './values.ts'

export interface Compared {
  readonly got: Value
  readonly wanted: Value
}

export const replay = async (exchange: Exchange, memory: Memory): Promise<Compared> => {
  const timers = virtualTimers()
  const { body } = exchange.response
  const time = timeOf(exchange)
  const cluster = openDouble({
    release: exchange.release,
    now: () => time,
    timers,
    uid: () => uidOf(body) || 'made-up',
    suffix: () => suffixOf(exchange),
  })
  const stage = stages[exchange.name] ?? {}
  setUp(cluster, { exchange, memory, stage })
  for (const earlier of stage.after ?? []) {
    const found = memory.exchanges.find(({ name }) => name === earlier) ?? elsewhere(earlier)
    await cluster.server.handle(askedOf(found, cluster))
    timers.advance(1)
  }
  const asked = askedOf(exchange, cluster)
  if (exchange.events !== undefined) return replayWatch(exchange, asked, { cluster, timers })
  const answering = cluster.server.handle(asked)
  // The one answer that takes its time is that of a list from the future.
  setImmediate(() => timers.advance(5))
  const { status, headers, body: answered } = await answering
  return {
    got: compared({ status, headers: { ...headers }, body: answered }),
    wanted: compared(structuredClone(exchange.response) as unknown as Tree),
  }
}

/** What may differ: tokens, which the recordings do not have. All else is given to the double or follows from it. */
const compared = (answer: Tree): Tree => {
  if (at(answer, 'body', 'spec', 'token') !== undefined) put(answer, ['body', 'spec', 'token'], 'REDACTED')
  return answer
}

const askedOf = (exchange: Exchange, cluster: Double): Asked => {
  const { method, path, query, headers, body } = exchange.request
  const sent = structuredClone(body)
  const reviewed = tokens[exchange.name]
  if (isTree(sent) && reviewed !== undefined) put(sent, ['spec', 'token'], reviewed(cluster, idIn(exchange)))
  return {
    method,
    path,
    query: new URLSearchParams(query),
    headers: {
      ...headers,
      authorization: `Bearer ${tokenOf(exchange, cluster)}`,
      'user-agent': `${managerOf(exchange)}/1`,
    },
    body: sent === null ? Buffer.alloc(0) : Buffer.from(JSON.stringify(sent)),
  }
}

const tokenOf = (exchange: Exchange, { people }: Double): string => {
  const { actor } = exchange
  if (actor.startsWith('nobody')) return 'nobody'
  if (actor === 'cluster administrator') return people.tokenFor(administrator)
  const [, username, groups] = /^user (\S+) \(groups (.*)\)$/.exec(actor) ?? []
  if (username !== undefined) return people.tokenFor({ username, groups: (groups ?? '').split(', ') })
  const [, namespace, name, pod] =
    /^system:serviceaccount:([^:]+):(\S+)(?: \(token bound to pod (\S+)\))?$/.exec(actor) ?? []
  const isBound = pod !== undefined && extraIn(exchange)['authentication.kubernetes.io/pod-name'] !== undefined
  return people.tokenOf(`${namespace}/${name}`, { id: idIn(exchange), ...(isBound ? { pod } : {}) })
}

const administrator: User = { username: 'system:admin', groups: ['system:masters', 'system:authenticated'] }

/** Where the answer shows which token was used. */
const extraIn = ({ response }: Exchange): Tree => {
  const ofSpec = treeAt(response.body, 'spec', 'extra')
  return Object.keys(ofSpec).length > 0 ? ofSpec : treeAt(response.body, 'status', 'user', 'extra')
}

const idIn = (exchange: Exchange): string => {
  const [id] = (extraIn(exchange)['authentication.kubernetes.io/credential-id'] ?? []) as string[]
  return id?.replace('JTI=', '') ?? 'unknown'
}

/** The name of the program that wrote, which was in a header that is not recorded: its entry is the newest update. */
const managerOf = ({ response }: Exchange): string => {
  const entries = treesAt(response.body, 'metadata', 'managedFields').filter(({ operation }) => operation === 'Update')
  const newest = entries.sort((one, other) => (textAt(one, 'time') < textAt(other, 'time') ? 1 : -1))[0]
  return textAt(newest, 'manager') || 'chancery'
}

const suffixOf = ({ request, response }: Exchange): string => {
  const name = textAt(response.body, 'metadata', 'name') || textAt(response.body, 'details', 'name')
  return name.slice(textAt(request.body, 'metadata', 'generateName').length)
}

/** The clock of the server: the newest time that it wrote, or the newest that the client sent. */
const timeOf = ({ request, response }: Exchange): Date => {
  const newest = (value: Value, names: readonly string[]): string[] =>
    isTree(value) || Array.isArray(value)
      ? Object.entries(value).flatMap(([name, inner]) =>
          names.includes(name) && typeof inner === 'string' && /Z$/.test(inner) ? [inner] : newest(inner, names),
        )
      : []
  const written = newest(response.body, ['creationTimestamp', 'time', 'lastUpdateTime'])
  const sent = newest(request.body, ['lastTransitionTime', 'eventTime', 'renewTime'])
  const [last = '2026-11-24T23:18:00Z'] = (written.length > 0 ? written : sent)
    .filter((time) => !Number.isNaN(Date.parse(time)))
    .sort()
    .reverse()
  return new Date(last)
}

export interface VirtualTimers extends Timers {
  advance(seconds: number): void
}

/** Time that passes when it is told to. */
export const virtualTimers = (): VirtualTimers => {
  let now = 0
  let order = 0
  const waiting = new Set<{ readonly at: number; readonly order: number; readonly call: () => void }>()
  return {
    after: (seconds, call) => {
      order += 1
      const timer = { at: now + seconds, order, call }
      waiting.add(timer)
      return () => waiting.delete(timer)
    },
    advance: (seconds) => {
      const end = now + seconds
      for (;;) {
        const [next] = [...waiting].sort((one, other) => one.at - other.at || one.order - other.order)
        if (next === undefined || next.at > end) break
        now = next.at
        waiting.delete(next)
        next.call()
      }
      now = end
    },
  }
}

const replayWatch = async (
  exchange: Exchange,
  asked: Asked,
  { cluster, timers }: { readonly cluster: Double; readonly timers: VirtualTimers },
): Promise<Compared> => {
  const wanted = exchange.events ?? []
  const got: Tree[] = []
  let ended = false
  const answered = await cluster.server.handle(asked)
  if (answered.stream === undefined) return { got: answered.body, wanted: [...wanted] as Value }
  const stop = answered.stream({
    send: (event) => got.push(event),
    end: () => {
      ended = true
    },
  })
  for (const event of wanted) happen(event, exchange, { cluster, timers, seen: () => got.length })
  if (exchange.ends) timers.advance(Number(asked.query.get('timeoutSeconds') ?? '0'))
  stop()
  return {
    got: { status: answered.status, events: got, ended },
    wanted: { status: exchange.response.status, events: [...wanted], ended: exchange.ends },
  }
}

/** Makes happen what the recorded event tells of, if it has not been told already. */
const happen = (
  { type, object: told = null }: Tree,
  exchange: Exchange,
  { cluster, timers, seen }: { readonly cluster: Double; readonly timers: VirtualTimers; readonly seen: () => number },
): void => {
  const { group, plural } = placeOf(exchange)
  const resource = cluster.catalogue.all().find((one) => one.group === group && one.plural === plural)
  if (resource === undefined || !isTree(told)) return
  const { kind: _, apiVersion: __, ...bare } = told
  if (type === 'BOOKMARK' && seen() > 0) {
    cluster.store.advance(versionOf(told))
    const before = seen()
    for (let waited = 0; seen() === before && waited < 300; waited += 1) timers.advance(1)
  }
  if (type === 'DELETED') cluster.store.remove(resource.storage, bare, versionOf(told))
  // What was there before the watch began has been told by it.
  if ((type === 'ADDED' || type === 'MODIFIED') && cluster.store.version() < versionOf(told))
    cluster.store.write(resource.storage, bare, versionOf(told))
}
