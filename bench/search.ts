/**
 * Search by name among many certificates. They are put into a scratch database by SQL, through every trigger, foreign
 * key and index of ours, shaped like those that the service makes: scattered serials, real TBS octets with the serial
 * and the name of each. Only their signatures and leaves are not true.
 */
import { Agent } from 'node:https'

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
    await fill(target, JSON.parse(text).serial, { certificates, tell })
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

interface Filling {
  readonly certificates: number
  readonly tell: (line: string) => void
}

export const fill = async ({ database }: Target, serial: string, { certificates, tell }: Filling): Promise<void> => {
  const { ownerUrl = '' } = database ?? {}
  await withClient(ownerUrl, async (client) => {
    for (let first = 1; first < certificates; first += batch) {
      const last = Math.min(certificates - 1, first + batch - 1)
      await client.query('begin')
      await client.query(makeRows, [first, last, serial, nameOf(0)])
      for (const statement of insertions) await client.query(statement)
      await client.query('commit')
      if (last % (batch * 10) === 0 || last === certificates - 1)
        tell(`${last + 1} certificates in the scratch database`)
    }
    await client.query('analyze')
  })
  const there = await countBy(ownerUrl, 'select count(*) from certificates')
  if (there < certificates) throw new Error(`only ${there} certificates in the scratch database`)
}

/** Of a fixed length, so that one name replaces another in DER. */
const nameOf = (i: number): string => `n${String(i).padStart(9, '0')}.example.com`

const makeRows = `
  with sample as (
    select i.*, o.signature, c.subject, c.key_sha256, c.not_before, c.not_after,
      position(i.serial in i.tbs) as serial_at, position(convert_to($4, 'utf8') in i.tbs) as name_at
    from intents i join outcomes o using (serial) join certificates c using (serial)
    where i.serial = decode($3, 'hex')
  ), numbered as (
    select g, 'n' || lpad(g::text, 9, '0') || '.example.com' as name, decode('4' || substr(md5(g::text), 2), 'hex') as new_serial
    from generate_series($1::integer, $2::integer) as g
  )
  select (select size from roll) + row_number() over (order by g) - 1 as entry, new_serial as serial, principal, issuer, shard, profile, profile_version, subject, key_sha256, not_before, not_after, signature, plan, digest, name,
    overlay(overlay(tbs placing new_serial from serial_at) placing convert_to(name, 'utf8') from name_at) as tbs,
    sha256(new_serial) as leaf_hash
  into temp made
  from numbered, sample`

/** In the order that triggers and foreign keys ask for. */
const insertions = [
  `insert into intents (serial, principal, attempt, digest, issuer, shard, profile, profile_version, tbs, plan)
   select serial, principal, 1, digest, issuer, shard, profile, profile_version, tbs, plan from made`,
  `update roll set size = size + (select count(*) from made), time = greatest(time, now()) where id = 1`,
  `insert into entries (index, type, time, leaf_hash, serial)
   select entry, 'certificate.issued', (select time from roll), leaf_hash, serial from made order by entry`,
  `insert into outcomes (serial, kind, signature, entry, at, principal, profile, issuer, subject, key_sha256, not_before, not_after)
   select serial, 'certificate', signature, entry, (select time from roll), principal, profile, issuer, subject, key_sha256,
     not_before, not_after from made`,
  `insert into certificate_names (serial, kind, name, entry)
   select serial, 'dns', 'com.example.' || split_part(name, '.', 1), entry from made`,
  `drop table made`,
]

const batch = 20_000
const warmUp = 200
const asked = 1_000
