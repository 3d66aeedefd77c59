/**
 * Many certificates revoked at once: planned, ordered, the instance killed half-way, resumed by another; and what issuing is
 * like beside it, and without it, in one run.
 */
import { fill } from '../../test/helpers/filling.ts'
import { type MassFacts, massFacts } from '../../test/helpers/mass.ts'
import { shoot, type Yield } from '../load/load.ts'
import { countBy, withClient } from '../place.ts'
import { pause } from '../process.ts'
import { call } from '../request.ts'
import { openChancery } from '../targets/chancery.ts'
import type { Target } from '../targets/target.ts'
import type { Plan } from './plan.ts'

export interface Many {
  readonly planned: number
  readonly planMs: number
  readonly orderMs: number
  /** Revoked when it was killed, and how long it was until another went on. */
  readonly atKill: number
  readonly idleMs: number
  /** From the order to the end, with the load beside it and the kill. */
  readonly seconds: number
  readonly phases: readonly Phase[]
  readonly facts: MassFacts
  /** Each of the plan once, none else, and events that say the same. */
  readonly isSound: boolean
}

export interface Phase {
  readonly title: string
  readonly issuance: Yield | undefined
  /** Certificates revoked meanwhile, and in how many seconds. */
  readonly revoked: number
  readonly seconds: number
}

interface Order {
  readonly digest: string
  readonly state: string
  readonly total: number
  readonly revoked: number
}

export const measureMany = async ({ options, place, sample, generator, tell }: Plan): Promise<Many> => {
  const certificates = options.certificates || 100_000
  const first = await openChancery({ place, sample, name: 'revoking' })
  let second: Target | undefined
  try {
    const client = clientOf(first)
    await client('POST', '/v1/grants', { principal: 'admin', role: 'operator' })
    const { serial } = await client<{ serial: string }>('POST', '/v1/certificates', JSON.parse(first.body))
    const { ownerUrl = '' } = first.database ?? {}
    await withClient(ownerUrl, (owner) =>
      fill(owner, { serial, first: 1, last: certificates - 1, tell: (n) => tell(`${n} certificates`) }),
    )
    const load = (clients: number, target: Target) =>
      shoot(generator, place.folder, {
        ...{ url: target.url, method: 'POST', headers: target.headers, body: target.body },
        ...{ clients, seconds: options.seconds },
      })
    const shots = [1, ...options.clients.slice(0, 1)]
    const phases: Phase[] = []
    for (const clients of shots)
      phases.push({
        title: `nothing revoked, ${clientsText(clients)}`,
        issuance: await load(clients, first),
        ...{ revoked: 0, seconds: 0 },
      })

    const ask = { search: { name: '*.example.com' }, reason: 'superseded' }
    const planned = performance.now()
    const plan = await client<{ digest: string; asOf: string; count: number }>('POST', '/v1/revocations', ask)
    const planMs = performance.now() - planned
    const { digest, asOf } = plan
    const ordering = performance.now()
    await client('POST', '/v1/revocations', { ...ask, digest, asOf })
    const orderMs = performance.now() - ordering
    tell(`planned ${plan.count} in ${planMs.toFixed(0)} ms, ordered in ${orderMs.toFixed(0)} ms`)
    const began = performance.now()
    const done = (): Promise<number> =>
      countBy(ownerUrl, `select coalesce(sum(revoked), 0) from mass_revocation_outcomes`)
    const phase = async (title: string, work: () => Promise<Yield | undefined>): Promise<void> => {
      const [before, from] = [await done(), performance.now()]
      const issuance = await work()
      const seconds = (performance.now() - from) / 1000
      phases.push({ title, issuance, revoked: (await done()) - before, seconds })
    }
    for (const clients of shots) await phase(`revoked, ${clientsText(clients)}`, () => load(clients, first))
    const half = plan.count / 2
    await phase('alone, until half are revoked', async () => {
      while ((await done()) < half) await pause(10)
      return undefined
    })
    process.kill(first.pid, 'SIGKILL')
    const atKill = await done()
    const killed = performance.now()
    tell(`killed at ${atKill} of ${plan.count}`)
    second = await openChancery({ place, sample, name: 'revoking', beside: first })
    while ((await done()) === atKill) await pause(10)
    const idleMs = performance.now() - killed
    const again = clientOf(second)
    let order = await again<Order>('GET', `/v1/revocations/${digest}`)
    await phase('alone, after the kill', async () => {
      for (; order.state === 'running'; order = await again<Order>('GET', `/v1/revocations/${digest}`)) await pause(100)
      return undefined
    })
    const seconds = (performance.now() - began) / 1000
    const facts = await massFacts(ownerUrl, digest)
    const { once, twice, others, unlike, events, done: ends } = facts
    const isSound =
      once === plan.count &&
      twice + others + unlike === 0 &&
      events === plan.count &&
      ends === 1 &&
      order.revoked === once
    return { planned: plan.count, planMs, orderMs, atKill, idleMs, seconds, phases, facts, isSound }
  } finally {
    await first.close().catch(() => {})
    await second?.close()
  }
}

const clientsText = (clients: number): string => (clients === 1 ? 'one client issues' : `${clients} clients issue`)

const clientOf =
  ({ url, ca, headers }: Target) =>
  async <T>(method: string, path: string, body?: object): Promise<T> => {
    const { authorization = '' } = headers
    const { status, text } = await call({
      ...{ url: new URL(path, url).href, ca, method },
      headers: { authorization, ...(body && { 'content-type': 'application/json' }) },
      ...(body && { body: JSON.stringify(body) }),
    })
    if (status >= 300) throw new Error(`${method} ${path} is answered with ${status}: ${text}`)
    return JSON.parse(text)
  }
