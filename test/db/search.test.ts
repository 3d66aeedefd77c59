/** Every combination of filters against what a reader of all certificates and events would find by itself. */
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import type { Caller } from '../../src/ca/access/access.ts'
import { openHolders } from '../../src/ca/issuance/holders.ts'
import type { Issued } from '../../src/ca/issuance/issuance.ts'
import type { CertificateFilter, EventFilter, FoundCertificate, OpenWalk } from '../../src/ca/records.ts'
import { readHeld } from '../../src/db/holders.ts'
import { openRecords } from '../../src/db/search/records.ts'
import { codec } from '../../src/server/codec.ts'
import { type NameKind, parseName } from '../../src/x509/names.ts'
import { readNames } from '../../src/x509/names-kept.ts'
import { slowTest } from '../helpers/slow.ts'
import { commonName, newP256, request, tlv } from '../x509/build.ts'
import { allowAll, openTestStores } from './stores.ts'

// Some thousands of searches.
t.setTimeout(300_000)

const { service, stores } = await openTestStores(t)

const principals = ['ann', 'bob', 'ci'] as const
const profiles = ['all', 'all-kube', 'short'] as const
const suffixes = ['a.test', 'b.a.test', 'c.test'] as const

/** Numbers that look random and are the same each time. */
const openDice = (seed: number) => {
  let state = seed
  const roll = (sides: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * sides)
  }
  return {
    roll,
    pick: <T>(of: readonly T[]): T => of[roll(of.length)] as T,
    chance: (percent: number) => roll(100) < percent,
  }
}

const callerOf = (principal: string): Caller => ({
  principal,
  proof: { kind: 'own' },
  grants: [
    {
      id: 'test',
      principal,
      role: 'requester',
      profiles: [...profiles],
      names: null,
      revoke: true,
      createdAt: new Date(),
      createdBy: 'test',
    },
  ],
})

/** The certificate with which the row of each began. */
const rows = new Map<string, string>()

const keys = new Map(principals.map((name) => [name, [newP256(), newP256()]]))

const issueOne = (
  dice: ReturnType<typeof openDice>,
  principal: (typeof principals)[number],
  more: { readonly profile: string; readonly validity: number },
) => {
  const names = [`dns:n${dice.roll(12)}.${dice.pick(suffixes)}`]
  if (dice.chance(40)) names.push(`dns:m${dice.roll(4)}.${dice.pick(suffixes)}`)
  if (dice.chance(20)) names.push(`ip:10.0.0.${dice.roll(3)}`)
  if (dice.chance(15)) names.push(`dns:*.${dice.pick(suffixes)}`)
  return service.service.issuance.issue(callerOf(principal), {
    csr: request({
      attributes: tlv(0xa0),
      signer: dice.pick(keys.get(principal) ?? []),
      subject: commonName(`s${dice.roll(4)}`),
    }),
    names: [...new Set(names)].map((text) =>
      parseName(text.split(':')[0] as NameKind, text.slice(text.indexOf(':') + 1)),
    ),
    ...more,
  })
}

/** Renews a certificate, and perhaps what comes of it, or the same once more. */
const renewOne = async (
  dice: ReturnType<typeof openDice>,
  issued: Issued,
  { profile, validity }: { readonly profile: string; readonly validity: number },
): Promise<string> => {
  const open = openHolders({
    read: (serial) => readHeld(stores.db, serial),
    isIssuerTrusted: () => true,
    mayBeOurs: () => true,
  })
  const caller = await open(issued.certificate, issued.serial)
  if (!caller) throw new Error('this is no holder')
  const csr = request({
    attributes: tlv(0xa0),
    signer: dice.pick(keys.get(caller.principal as (typeof principals)[number]) ?? []),
  })
  const renewed = await service.service.issuance.issue(caller, { csr, profile, validity })
  rows.set(renewed.serial, rows.get(issued.serial) as string)
  if (dice.chance(30)) await renewOne(dice, dice.pick([issued, renewed]), { profile, validity })
  return renewed.serial
}

t.before(async () => {
  const put = async (name: string, more: object) => {
    const { status } = await service.request('PUT', `/v1/profiles/${name}`, {
      headers: { 'if-none-match': '*' },
      body: { ...allowAll, renewal: { within: '1d', key: 'any' }, ...more, name },
    })
    if (status !== 201) throw new Error(`the profile ${name} is refused`)
  }
  const backdate = { default: '1h', max: '2h', backdate: '5m' }
  await put('all-kube', { authority: 'kubernetes', validity: backdate })
  await put('short', { validity: backdate })
  for (const name of principals) await stores.access.createPrincipal(name, 'admin')
  const dice = openDice(7)
  const serials: string[] = []
  for (let i = 0; i < 160; i += 1) {
    const principal = dice.pick(principals)
    const place = principals.indexOf(principal) + (dice.chance(20) ? 1 : 0)
    // Each has a profile that it uses less, and one that it never uses. Most expire within seconds: their five minutes
    // began five minutes ago.
    const more = { profile: profiles[place % 3] as string, validity: dice.pick([303, 303, 3_900, 6_600]) }
    const issued = await issueOne(dice, principal, more)
    serials.push(issued.serial)
    rows.set(issued.serial, issued.serial)
    if (more.profile !== 'all' && dice.chance(50)) serials.push(await renewOne(dice, issued, more))
    if (dice.chance(25)) {
      const path = `/v1/certificates/${dice.pick(serials)}/revocation`
      await service.request('POST', path, { body: { reason: dice.pick(['certificateHold', 'superseded']) } })
    }
    if (dice.chance(10)) await service.request('DELETE', `/v1/certificates/${dice.pick(serials)}/revocation`)
  }
  // Until all of these have expired.
  await sleep(3_500)
})

/** Every item, in pages of `limit`. */
const readAll = async <F, T>(open: OpenWalk<F, T>, filter: F, limit: number, at?: number): Promise<readonly T[]> => {
  const items: T[] = []
  let cursor: string | undefined
  do {
    const page = await (await open(filter, { cursor, at })).page(limit)
    t.ok(page.items.length <= limit)
    items.push(...page.items)
    cursor = page.next
  } while (cursor !== undefined)
  return items
}

const { walk } = openRecords({ db: stores.db, codec, namesOf: readNames, sentAlong: () => [] })

const reversed = (name: string): string => name.split('.').reverse().join('.')

/** A wildcard stands for one label. */
const covers = (wildcard: string, name: string): boolean =>
  wildcard.startsWith('*.') && name.includes('.') && wildcard.slice(1) === name.slice(name.indexOf('.'))

/** As the documents say, by reading all. */
const matches = (one: FoundCertificate, filter: CertificateFilter): boolean => {
  const { name, status, revokedAfter, revokedBefore } = filter
  const isNamed =
    name === undefined ||
    one.names.some(({ kind, value }) =>
      name.startsWith('*.')
        ? kind === 'dns' && value.endsWith(name.slice(1))
        : value === name || `${kind}:${value}` === name || (kind === 'dns' && covers(value, name)),
    )
  const revokedAt = one.revocation?.revokedAt
  return (
    isNamed &&
    (['serial', 'subject', 'principal', 'issuer'] as const).every(
      (field) => filter[field] === undefined || one[field] === filter[field],
    ) &&
    (filter.profile === undefined || one.profile.name === filter.profile) &&
    (filter.row === undefined || rows.get(one.serial) === rows.get(filter.row)) &&
    (filter.key === undefined || one.keySha256 === filter.key) &&
    (status === undefined || one.status === status) &&
    (!filter.issuedAfter || one.issuedAt >= filter.issuedAfter) &&
    (!filter.issuedBefore || one.issuedAt < filter.issuedBefore) &&
    (!filter.expiresAfter || one.notAfter >= filter.expiresAfter) &&
    (!filter.expiresBefore || one.notAfter < filter.expiresBefore) &&
    (!revokedAfter || (revokedAt !== undefined && revokedAt >= revokedAfter)) &&
    (!revokedBefore || (revokedAt !== undefined && revokedAt < revokedBefore))
  )
}

const inOrder = (found: readonly FoundCertificate[], filter: CertificateFilter): readonly FoundCertificate[] => {
  const { name, serial, row, key, subject, status, expiresAfter, expiresBefore, revokedAfter, revokedBefore } = filter
  const first = ({ names }: FoundCertificate): string =>
    names
      .filter(({ kind, value }) => kind === 'dns' && value.endsWith(String(name).slice(1)))
      .map(({ value }) => reversed(value))
      .sort()[0] ?? ''
  if (name?.startsWith('*.'))
    return [...found].sort((a, b) => (first(a) < first(b) ? -1 : first(a) > first(b) ? 1 : b.index - a.index))
  const isOfExpiry = expiresAfter || expiresBefore || status === 'valid' || status === 'expired'
  if (
    isOfExpiry &&
    ![name, serial, row, key, subject, revokedAfter, revokedBefore].some((value) => value !== undefined)
  )
    return [...found].sort((a, b) => a.notAfter.getTime() - b.notAfter.getTime() || a.index - b.index)
  return [...found].sort((a, b) => b.index - a.index)
}

/** As it is, or as lists show it; a wildcard as it is would mean all that is below it. */
const nameIn = (dice: ReturnType<typeof openDice>, { names }: FoundCertificate): string | undefined => {
  const { kind = 'dns', value = '' } = names.length > 0 ? dice.pick(names) : {}
  return value.startsWith('*.') || dice.chance(20) ? `${kind}:${value}` : value
}

const someFilter = (dice: ReturnType<typeof openDice>, all: readonly FoundCertificate[]): CertificateFilter => {
  const one = dice.pick(all)
  const other = dice.pick(all)
  const choices: readonly (readonly [keyof CertificateFilter, () => unknown, number])[] = [
    ['serial', () => one.serial, 3],
    ['row', () => one.serial, 10],
    ['name', () => (dice.chance(60) ? `*.${dice.pick([...suffixes, 'test', 'b.c.test'])}` : nameIn(dice, one)), 35],
    ['subject', () => one.subject, 20],
    ['profile', () => dice.pick(profiles), 30],
    ['principal', () => dice.pick(principals), 35],
    ['issuer', () => dice.pick(['default', 'kubernetes', 'etcd']), 25],
    ['status', () => dice.pick(['valid', 'expired', 'revoked']), 30],
    ['key', () => one.keySha256, 10],
    ['issuedAfter', () => one.issuedAt, 20],
    ['issuedBefore', () => other.issuedAt, 20],
    ['expiresAfter', () => one.notAfter, 15],
    ['expiresBefore', () => other.notAfter, 15],
    ['revokedAfter', () => new Date(one.issuedAt.getTime() - 60_000), 7],
    ['revokedBefore', () => new Date(one.issuedAt.getTime() + 60_000), 7],
  ]
  return Object.fromEntries(
    choices.filter(([, , percent]) => dice.chance(percent)).map(([field, value]) => [field, value()]),
  )
}

slowTest('any combination of filters finds exactly what it says, in its order, whatever a page holds', async (t) => {
  const all = await readAll(walk.certificates, {}, 1000)
  t.ok(all.length >= 160)
  t.same([...new Set(all.map(({ status }) => status))].sort(), ['expired', 'revoked', 'valid'])
  const dice = openDice(11)
  for (let i = 0; i < 120; i += 1) {
    const filter = someFilter(dice, all)
    const wanted = inOrder(
      all.filter((one) => matches(one, filter)),
      filter,
    ).map(({ serial }) => serial)
    const limit = dice.pick([1, 5, 20, 100])
    const found = (await readAll(walk.certificates, filter, limit)).map(({ serial }) => serial)
    t.same(found, wanted, `${JSON.stringify(filter)}, pages of ${limit}`)
    const counted = await (await walk.certificates(filter)).count()
    if (counted.exact) t.equal(counted.rows, wanted.length, `${JSON.stringify(filter)}: as many as it says`)
  }
})

t.test('a search at an earlier size finds what it would have found then', async (t) => {
  const all = await readAll(walk.certificates, {}, 1000)
  const events = (await readAll(walk.events, {}, 1000)).map(({ entry, index }) => ({ index, ...JSON.parse(entry) }))
  const size = events.length >> 1
  const standing = (serial: string): string => {
    const change = events
      .filter((event) => event.index < size && event.serial === serial && /revoked|released/.test(event.type))
      .at(-1)
    return change?.type === 'certificate.revoked' ? 'revoked' : 'not'
  }
  const then = all.filter(({ index }) => index < size)
  const revoked = then.filter(({ serial }) => standing(serial) === 'revoked').map(({ serial }) => serial)
  t.ok(revoked.length > 3 && revoked.length < all.filter(({ status }) => status === 'revoked').length)
  t.same(
    (await readAll(walk.certificates, {}, 7, size)).map(({ serial }) => serial),
    then.map(({ serial }) => serial),
  )
  t.same(
    (await readAll(walk.certificates, { status: 'revoked' }, 7, size)).map(({ serial }) => serial),
    revoked,
  )
  const found = await readAll(walk.certificates, { name: '*.test' }, 7, size)
  const below = then.filter((one) => matches(one, { name: '*.test' })).map(({ serial }) => serial)
  t.same(found.map(({ serial }) => serial).sort(), below.sort())
  for (const { serial, status } of found) t.equal(status === 'revoked', revoked.includes(serial))
  t.equal((await readAll(walk.events, {}, 50, size)).length, size)
  await t.rejects(walk.certificates({}, { at: 1_000_000 }), {
    code: 'request.malformed',
    options: { violations: [{ field: '/at', value: '1000000' }] },
  })
  const { next } = await (await walk.certificates({}, { at: size })).page(1)
  await t.rejects(walk.certificates({}, { cursor: next }), { code: 'request.cursor' }, 'a cursor belongs to its size')
})

slowTest('any combination of filters finds its events', async (t) => {
  const all = (await readAll(walk.events, {}, 1000)).map(({ entry, index }) => ({
    index,
    ...JSON.parse(entry),
  }))
  const types = [...new Set(all.map(({ type }) => type as string))]
  t.ok(types.length > 6)
  const isMeant = (event: (typeof all)[number], filter: EventFilter): boolean =>
    (filter.type === undefined || event.type === filter.type) &&
    (filter.serial === undefined || event.serial === filter.serial) &&
    (filter.principal === undefined || event.principal === filter.principal || event.by === filter.principal) &&
    (filter.by === undefined || event.by === filter.by) &&
    (!filter.after || event.time >= filter.after.toISOString()) &&
    (!filter.before || event.time < filter.before.toISOString()) &&
    event.index >= (filter.fromIndex ?? 0) &&
    event.index < (filter.beforeIndex ?? all.length)
  const dice = openDice(13)
  for (let i = 0; i < 120; i += 1) {
    const one = dice.pick(all)
    const choices: readonly (readonly [keyof EventFilter, () => unknown, number])[] = [
      ['type', () => dice.pick(types), 35],
      ['serial', () => dice.pick(all.filter(({ serial }) => serial)).serial, 10],
      ['principal', () => dice.pick([...principals, 'admin', 'chancery', 'nobody']), 40],
      ['by', () => dice.pick(['admin', 'chancery', 'nobody']), 20],
      ['after', () => new Date(one.time), 15],
      ['before', () => new Date(dice.pick(all).time), 15],
      ['fromIndex', () => one.index, 15],
      ['beforeIndex', () => dice.pick(all).index, 15],
    ]
    const filter: EventFilter = Object.fromEntries(
      choices.filter(([, , percent]) => dice.chance(percent)).map(([field, value]) => [field, value()]),
    )
    const wanted = all.filter((event) => isMeant(event, filter)).map(({ index }) => index)
    const limit = dice.pick([2, 10, 50])
    // Lists of what is revoked go on being published.
    const found = (await readAll(walk.events, filter, limit, all.length)).map(({ index }) => index)
    t.same(found, wanted, `${JSON.stringify(filter)}, pages of ${limit}`)
    const counted = await (await walk.events(filter, { at: all.length })).count()
    if (counted.exact) t.equal(counted.rows, wanted.length, `${JSON.stringify(filter)}: as many as it says`)
  }
})

t.test('while others issue and revoke, the pages of a search are those of the size at which it began', async (t) => {
  let stop = false
  const busy = (async () => {
    for (let i = 0; !stop; i += 1) {
      const { serial } = await issueOne(openDice(i), 'ann', { profile: 'all', validity: 6_600 })
      if (i % 2 === 0)
        await service.request('POST', `/v1/certificates/${serial}/revocation`, { body: { reason: 'superseded' } })
    }
  })()
  const searches: readonly (readonly [limit: number, CertificateFilter])[] = [
    [1, { principal: 'bob', status: 'revoked' }],
    [1, { name: '*.c.test', profile: 'all' }],
    [7, {}],
    [7, { name: '*.test' }],
    [7, { principal: 'ann' }],
    [7, { status: 'valid' }],
    [50, { profile: 'all' }],
    [50, { status: 'revoked' }],
  ]
  for (const [limit, filter] of searches) {
    const first = await walk.certificates(filter)
    const { size } = first.bounds
    let page = await first.page(limit)
    const found = [...page.items]
    while (page.next !== undefined) {
      const next = await walk.certificates(filter, { cursor: page.next })
      t.same(next.bounds, first.bounds)
      page = await next.page(limit)
      found.push(...page.items)
    }
    const wanted = await readAll(walk.certificates, filter, 1000, size)
    t.same(
      found.map(({ serial }) => serial),
      wanted.map(({ serial }) => serial),
      `${JSON.stringify(filter)}, pages of ${limit}`,
    )
  }
  stop = true
  await busy
})
