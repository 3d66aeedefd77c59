/** What the database itself holds to, whoever writes: nothing is issued that was not approved, and nothing ends twice. */
import { createHash, randomBytes, randomUUID } from 'node:crypto'

import pg from 'pg'
import t, { type Test } from 'tap'

import type { Caller } from '../../src/ca/access/access.ts'
import { type ApprovalStore, type ApprovalsDeps, openApprovals } from '../../src/ca/approvals/approvals.ts'
import type { ApprovalRequest } from '../../src/ca/approvals/request.ts'
import { failOpenRequests, openApprovalStore } from '../../src/db/approvals.ts'
import type { Queryable } from '../../src/db/database.ts'
import { Problem } from '../../src/errors.ts'
import { canonicalJson } from '../../src/lib/canonical-json.ts'
import { openTestServer } from '../helpers/database.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { holdTurn } from '../helpers/turn.ts'
import { employApprovers, openBeside, openDesk, type People, wantApprovals } from '../http/approvals.ts'
import { derFor } from '../http/people.ts'

let service: TestService
let people: People
let beside: Awaited<ReturnType<typeof openBeside>>
let decided: never

t.before(async () => {
  service = await openTestService(t)
  await wantApprovals(service, 'payments', { required: 2 })
  people = await employApprovers(service, ['payments', 'server'])
  beside = await openBeside(t, service)
  await holdTurn(t, beside.stores.db, 'approvals')
  decided = (await openDesk(service).ask(people.requester, 'payments')).json.plan as never
  await openDesk(service).ask(people.requester, 'server')
})

/** A request that nobody carries out. */
const propose = async (key: string, expires = 3_600, required = 2, store = beside.store) => {
  const { request } = await store.propose({
    principal: 'ci',
    key,
    digest: Buffer.alloc(32),
    vouched: null,
    input: { csr: derFor('pay.example.com'), profile: 'payments' },
    profile: { name: 'payments', version: 1 },
    plan: createHash('sha256').update(canonicalJson(decided)).digest(),
    decided,
    approvals: { required, expires },
  })
  return request
}

t.test('what is asked again under its key is told once as new, also by those that ask at once', async (t) => {
  let told = 0
  const proposed = () => {
    told += 1
  }
  const store = openApprovalStore({ ...beside.stores, proposed })
  const asked = await Promise.all(Array.from({ length: 5 }, () => propose('again', 3_600, 2, store)))
  asked.push(await propose('again', 3_600, 2, store))
  t.equal(new Set(asked.map(({ id }) => id)).size, 1)
  t.equal(told, 1)
})

t.test(
  'while the clocks disagree nobody is asked, and nobody’s word counts: who judges by which would be chance',
  async (t) => {
    const { id } = await propose('in time')
    const behind = await openBeside(t, service, () => new Date(Date.now() - 86_400_000))
    await t.rejects(propose('of yesterday', 3_600, 2, behind.store), {
      code: 'clock.skewed',
      kind: { retryable: true },
    })
    const approved = { type: 'request.approved', id, plan: 'ab'.repeat(32), reason: 'x', by: 'alice' } as const
    await t.rejects(
      behind.store.decide(id, approved, () => {}),
      { code: 'clock.skewed' },
    )
    await t.rejects(
      behind.store.decide(randomUUID(), approved, () => {}),
      { code: 'approval.not_found' },
      'what is wrong by any clock is told first',
    )
    const refuse = () => {
      throw new Problem('approval.own', 'This request is your own.')
    }
    await t.rejects(behind.store.decide(id, approved, refuse), { code: 'approval.own' })
    t.equal(await beside.store.find('ci', 'of yesterday'), undefined)
    t.match(await beside.store.read(id), { state: 'pending', approvals: { length: 0 } })
  },
)

t.test(
  'that its time is over is told by a clock that is right, until it is on record, and after all else',
  async (t) => {
    const { store } = await openBeside(t, service, () => new Date(Date.now() - 86_400_000))
    const over = await propose('over', 0)
    const ended = await propose('ended', 0)
    t.equal(await beside.store.end(ended.id, { kind: 'expired' }), true)
    const who = (principal: string, role: string) =>
      ({ principal, grants: [{ role, profiles: ['payments'] }] }) as unknown as Caller
    const alice = who('alice', 'approver')
    const by = (from: ApprovalStore) => openApprovals({ store: from } as ApprovalsDeps)
    const word = { digest: over.digest, reason: 'x' }
    const skewed = { code: 'clock.skewed', kind: { retryable: true } }
    await t.rejects(by(store).approve(alice, over.id, word), skewed)
    await t.rejects(by(store).reject(alice, over.id, word), skewed)
    await t.rejects(by(store).withdraw(who('ci', 'requester'), over.id, 'x'), skewed)
    await t.rejects(by(store).approve(who('ci', 'approver'), over.id, word), { code: 'approval.own' })
    await t.rejects(by(store).approve(who('eve', 'auditor'), over.id, word), { code: 'auth.forbidden' })
    await t.rejects(by(store).approve(alice, ended.id, word), { code: 'approval.expired' })
    await t.rejects(by(beside.store).approve(alice, over.id, word), { code: 'approval.expired' })
  },
)

const approve = (id: string, by: string) =>
  beside.store.decide(id, { type: 'request.approved', id, plan: 'ab'.repeat(32), reason: 'x', by }, () => {})

interface Intended {
  readonly approval: string | null
  readonly plan?: string
  readonly principal?: string
  readonly profile?: string
  readonly version?: number
  readonly issuer?: string
  /** Of its request, where it has one. */
  readonly key?: string
}

/** Like one of `server`, as the serving role inserts it. */
const intend = async (intended: Intended, on: Queryable = beside.stores.db) => {
  const { approval, plan = 'ab'.repeat(32), principal = 'ci', profile = 'payments', version = 1 } = intended
  const serial = randomBytes(16)
  await on.query(
    {
      text: `
        insert into intents (serial, principal, idempotency_key, attempt, digest, issuer, shard, profile, profile_version, tbs,
          plan, approval)
        select $1, $2, coalesce($3, (select idempotency_key from approval_requests where id = $6::uuid), $8),
          coalesce((select max(attempt) + 1 from intents where approval = $6::uuid), 1), digest, coalesce($9, issuer), shard, $4,
          $7, tbs,
          decode($5, 'hex'), $6::uuid
        from intents where profile = 'server' limit 1`,
    },
    [
      serial,
      principal,
      intended.key ?? null,
      profile,
      plan,
      approval,
      version,
      serial.toString('hex'),
      intended.issuer ?? null,
    ],
  )
  return serial
}

const clientOf = async (t: Test, connectionString: string): Promise<Queryable> => {
  const client = new pg.Client({ connectionString })
  await client.connect()
  t.teardown(() => client.end())
  return { query: ({ text }, values = []) => client.query(text, [...values]) as never }
}

const unapproved = /is not approved so, or has ended/

t.test(
  'an intent is of what there is, and where its profile wants approvals names a request, or is none',
  async (t) => {
    await t.rejects(intend({ approval: null }), /lacks its approvals/)
    await t.resolves(intend({ approval: null, profile: 'server' }))
    for (const made of [{ principal: 'made-up' }, { issuer: 'made-up' }, { profile: 'made-up' }, { version: 99 }])
      await t.rejects(intend({ approval: null, profile: 'server', ...made }), /does not exist/, JSON.stringify(made))
    await t.rejects(intend({ approval: '0193f2b4-7c02-7f11-8a2e-5d0b1c9e4f60' }), unapproved)
  },
)

t.test('one that was approved, by enough, of that plan, for who asked, and that has not ended', async (t) => {
  const { id, digest } = await propose('guarded')
  const good = { approval: id, plan: digest }
  await approve(id, 'alice')
  await t.rejects(intend(good), unapproved, 'by one of two')
  await t.rejects(approve(id, 'alice'), /approvals_pkey/, 'the same again is none')
  const beforeEnd = await propose('rejected')
  await approve(beforeEnd.id, 'alice')
  await approve(beforeEnd.id, 'bob')
  await beside.store.end(beforeEnd.id, { kind: 'failed', code: 'approval.plan', reason: 'x' })
  await t.rejects(intend({ ...good, approval: beforeEnd.id }), unapproved, 'it has ended')
  t.equal(await beside.store.end(beforeEnd.id, { kind: 'expired' }), false, 'and ends once')
  t.equal(await beside.store.end(id, { kind: 'expired' }), false, 'nor before its time')
  t.match(await beside.store.read(id), { state: 'pending' })
  await approve(beforeEnd.id, 'carol')
  await beside.store.postpone(beforeEnd.id, { code: 'key.unavailable', detail: 'x' })
  t.match(await beside.store.read(beforeEnd.id), { state: 'failed', obstacle: null }, 'nothing more becomes of it')
})

t.test('who has approved is told in the order of the roll', async (t) => {
  const { id } = await propose('in order', 3_600, 3)
  for (const by of ['carol', 'alice', 'bob']) await approve(id, by)
  const { approvals } = (await beside.store.read(id)) as ApprovalRequest
  t.same(
    approvals.map(({ principal }) => principal),
    ['carol', 'alice', 'bob'],
  )
  t.ok(approvals.every(({ index }, i) => i === 0 || index > (approvals[i - 1]?.index as number)))
})

t.test('what was approved in time and is found after it, as after an outage, ends and is not issued', async (t) => {
  const { id } = await propose('late', 0)
  await approve(id, 'alice')
  await approve(id, 'bob')
  t.match(await beside.store.read(id), { state: 'approved' }, 'until its end is there: an intent may be')
  const tried: string[] = []
  const approvals = openApprovals({
    store: beside.store,
    issuance: {
      issueApproved: async (_caller, _input, { id }) => {
        tried.push(id)
        throw new Error('nothing is issued here')
      },
    },
    refresh: async () => {},
    ended: () => {},
    // What another test has left may be due as well.
    failed: (request, error) => t.not(request, id, String(error)),
  })
  await approvals.follow(async () => true)
  t.notOk(tried.includes(id))
  t.match(await beside.store.read(id), { state: 'expired', serial: null })
  const listed = async (state: 'pending' | 'approved' | 'expired') =>
    (await beside.store.list(null, { state }, { limit: 1_000 })).items.some((one) => one.id === id)
  t.same(await Promise.all([listed('pending'), listed('approved'), listed('expired')]), [false, false, true])
})

t.test('the requester’s own word is none, even in the records', async (t) => {
  const { id, digest } = await propose('own')
  const body = { principal: 'ci', role: 'approver', profiles: ['payments'] }
  const { json: grant } = await service.request('POST', '/v1/grants', { body })
  await approve(id, 'ci')
  await approve(id, 'alice')
  t.match(await beside.store.read(id), { state: 'pending' })
  await t.rejects(intend({ approval: id, plan: digest }), unapproved)
  await service.request('DELETE', `/v1/grants/${grant.id}`)
})

t.test('what may still become a certificate does not end otherwise', async (t) => {
  const { id, digest } = await propose('under-way')
  await approve(id, 'alice')
  await approve(id, 'bob')
  const end = (values: string) =>
    beside.stores.db.query({ text: `insert into approval_ends (request, kind, entry, serial, at) values ${values}` }, [
      id,
    ])
  const serial = await intend({ approval: id, plan: digest })
  t.equal(await beside.store.end(id, { kind: 'expired' }), false)
  for (const [type, by] of [
    ['request.rejected', 'alice'],
    ['request.withdrawn', 'ci'],
  ] as const)
    await t.rejects(
      beside.store.decide(id, { type, id, plan: digest, reason: 'x', by }, () => {}),
      { code: 'approval.closed' },
      type,
    )
  await t.rejects(end(`($1, 'expired', 1000000, null, now())`), /is being issued/)
  await t.rejects(end(`($1, 'issued', null, '\\x${serial.toString('hex')}', now())`), /has not become this certificate/)
  await t.rejects(intend({ approval: id, plan: 'cd'.repeat(32) }), unapproved, 'of another plan')
  await t.rejects(intend({ approval: id, plan: digest, principal: 'alice' }), unapproved, 'for another')
})

/** As the serving role might insert it. */
const end = (on: Queryable, request: string, kind: 'issued' | 'expired', serial: Buffer | null) => {
  const entry = serial === null ? '(select 4000000 + count(*) from approval_ends)' : 'null'
  const text = `insert into approval_ends (request, kind, entry, serial, at) values ($1::uuid, $2, ${entry}, $3, now())`
  return on.query({ text }, [request, kind, serial])
}

const certificateColumns = ', signature, principal, profile, issuer, subject, key_sha256, not_before, not_after'

const approved = async (key: string, expires?: number, required?: number) => {
  const { id, digest: plan } = await propose(key, expires, required)
  await approve(id, 'alice')
  await approve(id, 'bob')
  return { approval: id, plan }
}

t.test('a request ends as issued by its own certificate alone, and in no other way where that is there', async (t) => {
  const [good, other] = [await approved('its own end'), await approved('the end of another')]
  const client = await clientOf(t, service.database.servingUrl)
  /** Entries are made up: nothing of it stays. */
  await client.query({ text: 'begin' })
  const outcome = async (serial: Buffer, entry: number | null): Promise<Buffer> => {
    const of = entry === null ? [] : [Buffer.alloc(1), 'ci', 'payments', 'default', '', Buffer.alloc(32)]
    const [columns, values] = entry === null ? ['', ''] : [certificateColumns, ', $4, $5, $6, $7, $8, $9, now(), now()']
    const text = `insert into outcomes (serial, kind, entry, at${columns}) values ($1, $2, $3, now()${values})`
    await client.query({ text }, [serial, entry === null ? 'unsigned' : 'certificate', entry, ...of])
    return serial
  }
  const refused = async (kind: 'issued' | 'expired', serial: Buffer | null, message: RegExp, what: string) => {
    await client.query({ text: 'savepoint before' })
    await t.rejects(end(client, good.approval, kind, serial), message, what)
    await client.query({ text: 'rollback to savepoint before' })
  }
  const unsigned = await outcome(await intend(good, client), null)
  await refused('issued', unsigned, /has not become this certificate/, 'of what came to nothing')
  const theirs = await outcome(await intend(other, client), 3_000_001)
  await refused('issued', theirs, /has not become this certificate/, 'before it has one')
  const serial = await intend(good, client)
  await client.query({ text: 'savepoint entry' })
  await t.rejects(outcome(serial, 3_000_001), /outcomes_entry_key/, 'an entry is of one certificate')
  await client.query({ text: 'rollback to savepoint entry' })
  const own = await outcome(serial, 3_000_002)
  await refused('issued', theirs, /has not become this certificate/, 'beside its own')
  await client.query({ text: 'savepoint before' })
  await t.rejects(intend(good, client), unapproved, 'nor has it a second one')
  await client.query({ text: 'rollback to savepoint before' })
  await refused('expired', null, /is being issued/, 'it is there')
  await end(client, good.approval, 'issued', own)
  await client.query({ text: 'rollback' })
})

t.test('without a key, and with its outcome, nothing is recorded of which the roll does not tell', async (t) => {
  const { approval: id, plan: digest } = await approved('told of nowhere')
  const record = (entry: string) =>
    beside.stores.db.query(
      {
        text: `
          with made as (
            insert into intents (serial, principal, attempt, digest, issuer, shard, profile, profile_version, tbs, plan, approval)
            select $1, 'ci', 1, digest, issuer, shard, 'payments', 1, tbs, decode($2, 'hex'), $3::uuid
            from intents where profile = 'server' limit 1
            returning serial, principal, profile, issuer)
          insert into outcomes (serial, kind, entry, at${certificateColumns})
          select serial, 'certificate', ${entry}, now(), '', principal, profile, issuer, '', sha256(''), now(), now() from made`,
      },
      [randomBytes(16), digest, id],
    )
  await t.rejects(record('0'), unapproved, 'an entry of something else')
  await t.rejects(record('5000000'), unapproved, 'no entry')
})

t.test('of an intent and an end that come at once the second waits, and is turned down', async (t) => {
  const first = await clientOf(t, service.database.servingUrl)
  const waits = async (second: Promise<unknown>) => {
    await Promise.race([untilWaiting(beside.stores.db), second])
    await first.query({ text: 'commit' })
    await second
  }
  const good = await approved('an intent first')
  await first.query({ text: 'begin' })
  await intend(good, first)
  await waits(t.rejects(end(beside.stores.db, good.approval, 'expired', null), /is being issued/))
  const { store } = beside
  const failed = { kind: 'failed', code: 'x', reason: 'x' } as const
  const failing = await approved('an intent before it fails')
  await first.query({ text: 'begin' })
  await intend(failing, first)
  await waits(store.end(failing.approval, failed).then((isEnded) => t.equal(isEnded, false)))
  const { approval: id, plan } = await approved('an intent before it is withdrawn')
  await first.query({ text: 'begin' })
  await intend({ approval: id, plan }, first)
  const withdrawn = { type: 'request.withdrawn', id, plan, reason: 'x', by: 'ci' } as const
  await waits(
    t.rejects(
      store.decide(id, withdrawn, () => {}),
      { code: 'approval.closed' },
    ),
  )
  const late = await approved('an end first')
  await first.query({ text: 'begin' })
  await end(first, late.approval, 'expired', null)
  await waits(t.rejects(intend(late), unapproved))
  t.equal(await store.end(late.approval, failed), false, 'it has ended before')
})

t.test(
  'where a roll is succeeded, what is approved fails, and what has ended or is being issued is left',
  async (t) => {
    const { db } = beside.stores
    const failing = async (id: string, entry: number) => {
      const { index } = (await beside.store.read(id)) as ApprovalRequest
      const word = { code: 'approval.plan', reason: 'lost' }
      const span = { from: index, before: index + 1 }
      return db.transaction((tx) => failOpenRequests(tx, { time: new Date(), index: entry }, span, word))
    }
    const { approval: open, plan } = await approved('left by a roll')
    const events = [{ type: 'request.failed', id: open, plan, code: 'approval.plan', reason: 'lost' }]
    t.same(await failing(open, 6_000_000), { events, next: undefined })
    t.same(await failing(open, 6_000_001), { events: [], next: undefined }, 'it has ended')
    const underWay = await approved('under way when it is')
    await intend(underWay)
    t.same(await failing(underWay.approval, 6_000_002), { events: [], next: undefined })
    t.match(await beside.store.read(underWay.approval), { state: 'approved' })
  },
)

t.test('what was approved is issued under its own key, version and profile, by as many as that wants', async (t) => {
  const good = await approved('its own')
  await t.rejects(intend({ ...good, key: 'another' }), unapproved)
  await wantApprovals(service, 'payments', { required: 2 }, { description: 'changed' })
  await t.rejects(intend({ ...good, version: 2 }), unapproved)
  await t.rejects(intend({ ...good, profile: 'server' }), unapproved)
  await t.rejects(intend({ ...good, plan: 'cd'.repeat(32) }), unapproved, 'of another plan')
  await t.rejects(intend({ ...good, principal: 'alice', key: 'its own' }), unapproved, 'for another')
  await t.rejects(intend(await approved('by fewer', 3_600, 1)), unapproved)
  await t.resolves(intend(good))
})

/** To the very moment at which a request ends. */
const rollAtEnd = `update roll set time = (select expires_at from approval_requests where id = $1::uuid) where id = 1`

t.test('not after its time, by the database’s clock, also where that went back', async (t) => {
  await t.rejects(intend(await approved('too late', 0)), unapproved)
  const good = await approved('in time')
  const owner = await clientOf(t, service.database.ownerUrl)
  await owner.query({ text: 'begin' })
  // What is on the roll has been: nobody is earlier.
  await owner.query({ text: rollAtEnd }, [good.approval])
  await t.rejects(intend(good, owner), unapproved)
  await owner.query({ text: 'rollback' })
  await t.resolves(intend(good))
})

t.test('what is over by the roll is told as over, and is due, also where the clock went back', async (t) => {
  const { id } = await propose('over by the roll')
  const owner = await clientOf(t, service.database.ownerUrl)
  const db = { ...beside.stores.db, query: owner.query }
  const store = openApprovalStore({ ...beside.stores, db, proposed: () => {} })
  const states = async () => {
    const told: string[] = [(await store.read(id))?.state ?? 'none']
    for (const state of ['pending', 'expired'] as const)
      if ((await store.list(null, { state }, { limit: 1_000 })).items.some((one) => one.id === id)) told.push(state)
    return told
  }
  t.same(await states(), ['pending', 'pending'])
  await owner.query({ text: 'begin' })
  await owner.query({ text: rollAtEnd }, [id])
  t.same(await states(), ['expired', 'expired'])
  t.match(
    (await store.due()).find((one) => one.id === id),
    { isDue: true, isApproved: false },
  )
  await owner.query({ text: 'rollback' })
})

t.test('what is approved is not left by a clock that was set back until that is as late again', async (t) => {
  const waits = await propose('waits for people')
  const { approval: id } = await approved('put off')
  const isDue = async (one: string) => (await beside.store.due()).some((request) => request.id === one)
  const putOff = async (request: string) => {
    const owner = await clientOf(t, service.database.ownerUrl)
    await owner.query(
      { text: `update approval_standings set look_at = clock_timestamp() + interval '1 day' where request = $1::uuid` },
      [request],
    )
  }
  await putOff(id)
  await putOff(waits.id)
  t.equal(await isDue(id), true, 'nobody puts it off for so long')
  t.equal(await isDue(waits.id), false, 'this one has nothing to be done about it until it expires')
  await beside.store.postpone(id)
  t.equal(await isDue(id), false, 'by the clock of now, for a moment')
})

t.test('a key that people were asked under has no certificate without them, whatever became of it', async (t) => {
  const direct = (key: string, more: object = {}) => intend({ approval: null, profile: 'server', key, ...more })
  await propose('asked pending')
  const failed = await propose('asked failed')
  await beside.store.end(failed.id, { kind: 'failed', code: 'approval.plan', reason: 'x' })
  const asked = /under this key people were asked/
  await t.rejects(direct('asked pending'), asked)
  await t.rejects(direct('asked failed'), asked)
  await t.resolves(direct('asked pending', { principal: 'alice' }), 'somebody else’s key is another')
  await t.resolves(direct('alice has one', { principal: 'alice' }))
  await t.resolves(propose('alice has one'), 'also where people are asked')
  await t.resolves(direct('asked never'))
  await t.rejects(propose('asked never'), { code: 'idempotency.reused' })
  t.equal(await beside.store.find('ci', 'asked never'), undefined)
})

/** Resolves when somebody waits for a lock that another transaction has. */
const untilWaiting = async (on: Queryable): Promise<void> => {
  for (;;) {
    const { rows } = await on.query({
      text: `select from pg_locks where locktype = 'advisory' and not granted and database = (
        select oid from pg_database where datname = current_database())`,
    })
    if (rows.length > 0) return
  }
}

t.test('also where both come at once: the second waits, and is turned down', async (t) => {
  const first = await clientOf(t, service.database.servingUrl)
  const direct = (key: string, on?: Queryable) => intend({ approval: null, profile: 'server', key }, on)
  await first.query({ text: 'begin' })
  await direct('at once', first)
  const second = t.rejects(propose('at once'), { code: 'idempotency.reused' })
  await untilWaiting(beside.stores.db)
  await first.query({ text: 'commit' })
  await second

  await first.query({ text: 'begin' })
  await first.query(
    {
      text: `
        insert into approval_requests (id, entry, principal, idempotency_key, digest, profile, profile_version, ask, decided,
          plan, required, created_at, expires_at)
        select $1, 2000000, principal, 'once more', digest, profile, profile_version, ask, decided, plan, required, created_at,
          expires_at from approval_requests where principal = 'ci' limit 1`,
    },
    [randomUUID()],
  )
  const third = t.rejects(direct('once more'), /under this key people were asked/)
  await untilWaiting(beside.stores.db)
  await first.query({ text: 'commit' })
  await third
})

t.test('an approval of which the roll does not tell is none', async (t) => {
  const { id } = await propose('forged')
  const forge = (entry: number, by = 'alice') =>
    beside.stores.db.query({ text: `insert into approvals values ($1, $2, $3, now(), 'forged')` }, [id, by, entry])
  await t.rejects(forge(88_888_888), /is not on the roll/)
  await approve(id, 'alice')
  const entry = (await beside.store.read(id))?.approvals[0]?.index as number
  await t.rejects(forge(entry, 'bob'), /approvals_entry_key/)
  const other = (await beside.stores.roll.head()).size - 2
  await t.rejects(forge(other, 'bob'), /is not on the roll/, 'of another entry')
  t.match(await beside.store.read(id), { state: 'pending', approvals: [{ principal: 'alice' }] })
})

t.test('one request has one certificate, also by intents without a key, or several at once', async (t) => {
  const good = await approved('one')
  const insert = (serials: readonly Buffer[], key: string | null) =>
    beside.stores.db.query(
      {
        text: `
          insert into intents (serial, principal, idempotency_key, attempt, digest, issuer, shard, profile, profile_version, tbs,
            plan, approval)
          select made.serial, 'ci', $3::text, number, digest, issuer, shard, 'payments', 1, tbs, decode($2, 'hex'), $1::uuid
          from (select * from intents where profile = 'server' limit 1) i,
            unnest($4::bytea[]) with ordinality as made (serial, number)
          where $3::text is not null or number = 1`,
      },
      [good.approval, good.plan, key, serials],
    )
  await t.rejects(insert([randomBytes(16)], null), unapproved, 'without a key')
  await t.rejects(insert([randomBytes(16), randomBytes(16)], 'one'), unapproved, 'two at once')
  const serial = await intend(good)
  await t.rejects(intend(good), unapproved, 'one beside an open one')
  await beside.stores.db.query({ text: `insert into outcomes (serial, kind, at) values ($1, 'unsigned', now())` }, [
    serial,
  ])
  await t.resolves(intend(good), 'but one after it')
  const { approval, plan } = await approved('nothing came of it')
  const first = await intend({ approval, plan })
  const failed = { kind: 'failed', code: 'x', reason: 'x' } as const
  t.equal(await beside.store.end(approval, failed), false)
  await beside.stores.db.query({ text: `insert into outcomes (serial, kind, at) values ($1, 'unsigned', now())` }, [
    first,
  ])
  t.equal(await beside.store.end(approval, failed), true, 'what came to nothing keeps no end from it')
})

t.test('a role without rights postpones nothing and counts as no instance', async (t) => {
  const { id } = await propose('postponed')
  const name = new URL(service.database.ownerUrl.replace('@/', '@host/')).pathname
  const superuser = await clientOf(t, (await openTestServer()).superuserUrl.replace('/postgres?', `${name}?`))
  await superuser.query({ text: 'begin; create role chancery_reader; set local role chancery_reader' })
  for (const call of [`postpone_request('${id}', 'made.up', 'told by nobody')`, `note_replica(gen_random_uuid())`]) {
    await superuser.query({ text: 'savepoint before' })
    await t.rejects(superuser.query({ text: `select ${call}` }), /permission denied for function/)
    await superuser.query({ text: 'rollback to savepoint before' })
  }
  await superuser.query({ text: 'rollback' })
})

t.test('who has asked, and who has approved, may still do so when it is issued', async (t) => {
  const waiting = await Promise.all(['closed', 'revoked', 'gone'].map((key) => approved(key)))
  const [first, second, third] = waiting as [Intended, Intended, Intended]
  await t.resolves(intend(first))
  const grants = (await service.request('GET', '/v1/grants')).json.items
  const of = (who: string) => grants.find((one: { principal: string }) => one.principal === who).id
  await service.request('DELETE', `/v1/grants/${of('alice')}`)
  await t.rejects(intend(second), unapproved, 'an approver has no grant any more')
  await service.request('POST', '/v1/grants', {
    body: { principal: 'alice', role: 'approver', profiles: ['server'] },
  })
  await t.rejects(intend(second), unapproved, 'nor has one for another profile')
  await service.request('POST', '/v1/grants', {
    body: { principal: 'alice', role: 'requester', profiles: ['payments'] },
  })
  await t.rejects(intend(second), unapproved, 'nor approves what she may ask for')
  await service.request('POST', '/v1/grants', {
    body: { principal: 'alice', role: 'approver', profiles: ['payments'] },
  })
  await t.resolves(intend(second), 'but one again')
  await service.request('DELETE', '/v1/principals/bob')
  await t.rejects(intend(third), unapproved, 'an approver is disabled')
  const { id, digest } = await propose('asker')
  await approve(id, 'alice')
  await approve(id, 'carol')
  await service.request('DELETE', '/v1/principals/ci')
  await t.rejects(intend({ approval: id, plan: digest }), unapproved, 'who has asked is disabled')
})

t.test('nothing of it is ever changed', async (t) => {
  for (const table of ['approval_requests', 'approvals', 'approval_ends'])
    for (const text of [`delete from ${table}`, `update ${table} set entry = 0`])
      await t.rejects(beside.stores.db.query({ text }), /permission denied/)
  for (const text of ['delete from approval_standings', `update approval_standings set state = 'approved'`])
    await t.rejects(beside.stores.db.query({ text }), /permission denied/)
})
