/** Search by name among many certificates, put into a scratch database by SQL. */
import { Agent } from 'node:https'

import { fill, nameOf } from '../test/helpers/filling.ts'
import { countBy, type Place, withClient } from './place.ts'
import { call } from './request.ts'
import { makeSample } from './sample.ts'
import { openChancery } from './targets/chancery.ts'
import type { Target } from './targets/target.ts'

export interface SearchRow {
  readonly title: string
  readonly certificates: number
  /** Items on the page. */
  readonly found: number
  /** Milliseconds, as one client sees them who asks again when answered. */
  readonly p50: number
  readonly p99: number
}

export const measureSearches = async (
  place: Place,
  certificates: number,
  tell: (line: string) => void,
): Promise<SearchRow[]> => {
  const sample = await makeSample(place.folder, { name: nameOf(0) })
  const target = await openChancery({ place, sample, name: 'scratch' })
  try {
    const { url, ca, headers, body } = target
    const { status, text } = await call({ url, ca, method: 'POST', headers, body })
    target.assertIssued(status, text)
    await fillScratch(target, JSON.parse(text).serial, { certificates, tell })
    const rows: SearchRow[] = []
    for (const [title, queryOf] of searches(certificates))
      rows.push(await time(target, { title, certificates, queryOf }))
    return rows
  } finally {
    await target.close()
  }
}

const searches = (certificates: number): [string, () => string][] => [
  ['an exact name', () => `name=${nameOf(1 + Math.floor(Math.random() * (certificates - 1)))}`],
  ['a name that is not there', () => `name=${nameOf(999_999_999 - Math.floor(Math.random() * 1e6))}`],
  ['every name below a suffix, the newest 100', () => 'name=*.example.com&limit=100'],
]

interface Search {
  readonly title: string
  readonly certificates: number
  readonly queryOf: () => string
}

const time = async (target: Target, { title, certificates, queryOf }: Search): Promise<SearchRow> => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const { authorization = '' } = target.headers
  const times: number[] = []
  let found = 0
  for (let i = 0; i < warmUp + asked; i += 1) {
    const began = performance.now()
    const { status, text } = await call({
      url: `${target.url}?${queryOf()}`,
      ca: target.ca,
      headers: { authorization },
      agent,
    })
    if (status !== 200) throw new Error(`a search is answered with ${status}: ${text}`)
    if (i >= warmUp) times.push(performance.now() - began)
    found = JSON.parse(text).items.length
  }
  agent.destroy()
  times.sort((a, b) => a - b)
  return { title, certificates, found, p50: times[asked >> 1] ?? 0, p99: times[Math.floor(asked * 0.99)] ?? 0 }
}

/** As many as `certificates` in all, like the one with this serial. */
export const fillScratch = async (
  { database }: Target,
  serial: string,
  { certificates, tell }: { readonly certificates: number; readonly tell: (line: string) => void },
): Promise<void> => {
  const { ownerUrl = '' } = database ?? {}
  await withClient(ownerUrl, (client) =>
    fill(client, {
      serial,
      first: 1,
      last: certificates - 1,
      tell: (count) => {
        if (count % 200_000 === 0 || count === certificates - 1)
          tell(`${count + 1} certificates in the scratch database`)
      },
    }),
  )
  const there = await countBy(ownerUrl, 'select count(*) from certificates')
  if (there < certificates) throw new Error(`only ${there} certificates in the scratch database`)
}

const warmUp = 200
const asked = 1_000
