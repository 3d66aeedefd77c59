/**
 * A crash between any two steps of the cycle: what the records say afterwards, and what the client gets that asks again
 * under its key. The process that dies is a real issuance over the real database whose step never returns.
 */
import nodeProcess from 'node:process'

import t, { type Test } from 'tap'

import { hasRole } from '../../src/ca/access/access.ts'
import type { Issued } from '../../src/ca/issuance/issuance.ts'
import { type IssuanceDeps, openIssuance } from '../../src/ca/issuance/issue.ts'
import { reconcile } from '../../src/ca/issuance/reconcile.ts'
import type { Intent, Recorder } from '../../src/ca/issuance/recorder.ts'
import { openApprovalStore } from '../../src/db/approvals.ts'
import type { Database, Statement } from '../../src/db/database.ts'
import { openRecorder } from '../../src/db/issuance.ts'
import { openRollWriter } from '../../src/db/log.ts'
import { openIntents } from '../../src/db/open-intents.ts'
import { Problem } from '../../src/errors.ts'
import { SigningFault, type SigningKey } from '../../src/keys/signing-key.ts'
import { checkOne } from '../../src/keys/verifier-batch.ts'
import { codec } from '../../src/server/codec.ts'
import { openKeyed } from '../../src/server/issuers.ts'
import { openRollSide } from '../../src/server/log.ts'
import { parseTbs } from '../../src/x509/certificate.ts'
import type { CheckSignature } from '../../src/x509/csr.ts'
import { encodePem } from '../../src/x509/pem.ts'
import { faultsInRecords } from '../crash/checker.ts'
import { silentMeter } from '../helpers/meter.ts'
import { openReplica, type ReplicaOptions } from '../helpers/replica.ts'
import { slowTest } from '../helpers/slow.ts'
import { derFor } from '../http/people.ts'

const open = async (t: Test, options: ReplicaOptions = {}) => {
  const { database, stores, keys } = await openReplica(t, options)
  const grants = await stores.access.listGrants('admin')
  const caller = { principal: 'admin', proof: { kind: 'own' } as const, grants }
  t.ok(hasRole(caller, 'requester'))

  /** One process: the real thing, but for what the faults replace. */
  const process = async (faults: Faults = {}) => {
    const db = faults.database?.(stores.db) ?? stores.db
    const roll = openRollWriter(db, codec, stores.dbClock)
    const recorder = openRecorder({ ...stores, db, roll, meter: silentMeter, refusalsPerMinute: 60 })
    const issuers = await openKeyed(
      stores,
      { open: async (uri) => faults.key?.(await keys.open(uri)) ?? (await keys.open(uri)) },
      silentMeter,
    )
    const limits = {
      queue: faults.queue ?? 100,
      requestDeadlineMs: faults.requestDeadlineMs ?? 300,
      signingDeadlineMs: 300,
    }
    const side = await openRollSide({ ...stores, db, roll }, keys)
    t.teardown(side.close)
    const issuance = openIssuance({
      ...stores,
      recorder: { ...recorder, ...faults.recorder?.(recorder) },
      issuers,
      meter: silentMeter,
      isBlocked: () => false,
      verify: faults.verify ?? (async (check) => checkOne(check)),
      approvals: openApprovalStore({ ...stores, proposed: () => {} }),
      sleep: faults.sleep ?? ((ms) => new Promise((resolve) => setTimeout(resolve, ms))),
      nextTurn: () => new Promise((resolve) => setImmediate(resolve)),
      assertClock: faults.assertClock ?? stores.dbClock.assertSane,
      checkpoints: { ...side.checkpoints, ...faults.checkpoints },
      limits,
    })
    return (key: string, more: { readonly validity?: number } = {}): Promise<Issued> =>
      issuance.issue(caller, { csr, profile: 'server', idempotencyKey: key, ...more })
  }
  const endOpen = (): Promise<number> =>
    reconcile(
      openIntents(stores.db, stores.roll, (tbs) => parseTbs(tbs).notAfter),
      0,
    )
  const outcomes = async (): Promise<string[]> =>
    (await stores.db.query<{ kind: string }>({ text: 'select kind from outcomes order by at, serial' })).rows.map(
      ({ kind }) => kind,
    )
  const faultsFound = (answers: readonly { key: string; issued: Issued }[]) =>
    faultsInRecords(
      database.ownerUrl,
      answers.map(({ key, issued }) => ({
        key,
        serial: issued.serial,
        index: issued.index,
        certificate: encodePem('CERTIFICATE', issued.certificate),
      })),
    )
  const intentIsThere = async (): Promise<void> => {
    while ((await stores.db.query({ text: 'select from intents' })).rowCount === 0) await withinMs(5)
  }
  return { process, endOpen, outcomes, faultsFound, stores, intentIsThere }
}

interface Faults {
  readonly recorder?: (real: Recorder) => Partial<Recorder>
  readonly key?: (real: SigningKey) => SigningKey
  readonly database?: (real: Database) => Database
  readonly verify?: CheckSignature
  readonly assertClock?: () => void
  readonly checkpoints?: Partial<IssuanceDeps['checkpoints']>
  readonly queue?: number
  readonly requestDeadlineMs?: number
  readonly sleep?: (ms: number) => Promise<void>
}

const forever = new Promise<never>(() => {})
const withinMs = (ms: number): Promise<'nothing'> => new Promise((resolve) => setTimeout(resolve, ms, 'nothing'))

slowTest('a crash before the intent leaves nothing, and a retry issues', async (t) => {
  const { process, endOpen, outcomes, faultsFound } = await open(t)
  const dying = await process({ recorder: () => ({ recordIntent: () => forever }) })
  t.equal(await Promise.race([dying('k1'), withinMs(100)]), 'nothing')
  t.equal(await endOpen(), 0)
  const issued = await (await process())('k1')
  t.same(await outcomes(), ['certificate'])
  t.same(await faultsFound([{ key: 'k1', issued }]), [])
})

t.test(
  'a crash after the intent leaves it open: a retry waits, then is told to come back; the reconciler abandons it; a retry issues',
  async (t) => {
    const { process, endOpen, outcomes, faultsFound, intentIsThere } = await open(t)
    const dying = await process({ key: dumb })
    const answer = dying('k1').catch(() => 'late')
    await intentIsThere()
    t.equal(await Promise.race([answer, withinMs(100)]), 'nothing')
    const paused: number[] = []
    const living = await process({ sleep: async (ms) => void paused.push(ms) })
    await t.rejects(living('k1'), { code: 'request.in_progress', kind: { retryable: true } })
    t.same(paused, [20, 40, 80, 160], 'never for longer than the deadline, which is 300')
    t.equal(await endOpen(), 1)
    const issued = await living('k1')
    t.same((await outcomes()).sort(), ['abandoned', 'certificate'])
    t.same(await faultsFound([{ key: 'k1', issued }]), [])
  },
)

slowTest(
  'whoever waited long for an earlier call that came to nothing is not taken at its word, but asks again',
  async (t) => {
    /** After so many pauses, as far as anybody is told: of 20 ms, and each twice as long as the one before. */
    const askedAgain = async (key: string, pausesUntilOver: number) => {
      const { process, endOpen, outcomes, intentIsThere } = await open(t)
      const dying = await process({ key: dumb })
      dying(key).catch(() => {})
      await intentIsThere()
      let pauses = 0
      const living = await process({
        requestDeadlineMs: 5_000,
        sleep: async () => {
          pauses += 1
          if (pauses === pausesUntilOver) t.equal(await endOpen(), 1)
        },
      })
      return { answer: living(key), living, outcomes }
    }
    const long = await askedAgain('k1', 6)
    await t.rejects(long.answer, { code: 'request.in_progress', message: /did not end in a certificate/ })
    t.same(await long.outcomes(), ['abandoned'])
    await long.living('k1')
    t.same((await long.outcomes()).sort(), ['abandoned', 'certificate'])
    const short = await askedAgain('k1', 5)
    t.match(await short.answer, { replayed: false }, 'who waited for less than a second goes on')
    t.same((await short.outcomes()).sort(), ['abandoned', 'certificate'])
  },
)

t.test('whoever waited long for an earlier call that ended in a certificate gets that one', async (t) => {
  const { process, outcomes, intentIsThere } = await open(t)
  const signing = Promise.withResolvers<void>()
  const slow = await process({
    key: (real) => ({
      ...real,
      sign: async (messages) => {
        if (!isTrial(messages)) await signing.promise
        return real.sign(messages)
      },
    }),
  })
  const first = slow('k1')
  await intentIsThere()
  let pauses = 0
  const living = await process({
    requestDeadlineMs: 5_000,
    sleep: async () => {
      pauses += 1
      if (pauses < 6) return
      signing.resolve()
      await first
    },
  })
  t.match(await living('k1'), { serial: (await first).serial, replayed: true })
  t.equal(pauses, 6)
  t.same(await outcomes(), ['certificate'])
})

t.test(
  'a crash after signing and before recording hands nothing out, and the signature is accounted for as abandoned',
  async (t) => {
    const { process, endOpen, outcomes, faultsFound, intentIsThere } = await open(t)
    const dying = await process({ recorder: () => ({ recordCertificate: () => forever }) })
    const answer = dying('k1')
    await intentIsThere()
    t.equal(await Promise.race([answer, withinMs(100)]), 'nothing')
    t.equal(await endOpen(), 1)
    const issued = await (await process())('k1')
    t.same((await outcomes()).sort(), ['abandoned', 'certificate'])
    t.same(await faultsFound([{ key: 'k1', issued }]), [])
  },
)

t.test('a crash after the commit and before the answer: the retry gets that very certificate', async (t) => {
  const { process, endOpen, outcomes, faultsFound } = await open(t)
  const dying = await process({
    recorder: (real) => ({
      recordCertificate: async (enrolment) => {
        await real.recordCertificate(enrolment)
        return forever
      },
    }),
  })
  t.equal(await Promise.race([dying('k1'), withinMs(300)]), 'nothing')
  const issued = await (await process())('k1')
  t.equal(issued.replayed, true)
  t.equal(await endOpen(), 0)
  t.same(await outcomes(), ['certificate'])
  t.same(await faultsFound([{ key: 'k1', issued }]), [])
})

t.test('one who wakes up after its intent was abandoned hands nothing out', async (t) => {
  const { process, endOpen, outcomes, faultsFound } = await open(t)
  let wake = (): void => {}
  const asleep = new Promise<void>((resolve) => {
    wake = resolve
  })
  const { promise: falling, resolve: fall } = Promise.withResolvers<void>()
  const sleeper = await process({
    recorder: (real) => ({
      recordCertificate: async (enrolment) => {
        fall()
        await asleep
        return real.recordCertificate(enrolment)
      },
    }),
  })
  const answer = sleeper('k1').then(
    () => 'issued',
    (error: unknown) => error,
  )
  await falling
  t.equal(await endOpen(), 1)
  wake()
  t.match(await answer, { code: 'issuance.abandoned', kind: { retryable: true } })
  t.same(await outcomes(), ['abandoned'])
  t.same(await faultsFound([]), [])
})

t.test('in a batch only the abandoned one is dropped', async (t) => {
  const { process, endOpen, outcomes, faultsFound, stores } = await open(t)
  const held: (() => void)[] = []
  const gated = await process({
    recorder: (real) => ({
      recordCertificate: async (enrolment) => {
        await new Promise<void>((resolve) => held.push(resolve))
        return real.recordCertificate(enrolment)
      },
    }),
  })
  const first = gated('k1').catch((error: unknown) => error)
  await until(() => held.length === 1)
  t.equal(await endOpen(), 1)
  const others = ['k2', 'k3'].map((key) => gated(key))
  await until(() => held.length === 3)
  for (const go of held) go()
  t.match(await first, { code: 'issuance.abandoned' })
  const answers = await Promise.all(others)
  t.same((await outcomes()).sort(), ['abandoned', 'certificate', 'certificate'])
  t.same(await faultsFound(answers.map((issued, i) => ({ key: `k${i + 2}`, issued }))), [])
  t.ok(stores)
})

t.test('a lost acknowledgement of the commit is looked up, not guessed', async (t) => {
  const { process, outcomes, faultsFound } = await open(t)
  const lossy = await process({ database: loseAcknowledgement('enrol') })
  const issued = await lossy('k1')
  t.equal(issued.replayed, false)
  t.same(await outcomes(), ['certificate'])
  t.same(await faultsFound([{ key: 'k1', issued }]), [])
})

t.test('a lost acknowledgement of the intent signs nothing; a retry under the key issues', async (t) => {
  const { process, outcomes, faultsFound } = await open(t)
  const lossy = await process({ database: loseAcknowledgement('insert_intents') })
  await t.rejects(lossy('k1'), { code: 'db.unavailable', kind: { retryable: true } })
  const issued = await lossy('k1')
  t.same((await outcomes()).sort(), ['certificate', 'unsigned'])
  t.same(await faultsFound([{ key: 'k1', issued }]), [])
})

t.test(
  'a key that fails before it is used leaves an unsigned intent; the retry issues under a new serial',
  async (t) => {
    const { process, outcomes, faultsFound } = await open(t)
    let broken = true
    const flaky = await process({
      key: (real) => ({
        ...real,
        sign: async (messages) =>
          broken && !isTrial(messages)
            ? messages.map(() => new SigningFault('before', 'no session'))
            : real.sign(messages),
      }),
    })
    await t.rejects(flaky('k1'), { code: 'key.unavailable', kind: { status: 503, retryable: true } })
    t.same(await outcomes(), ['unsigned'])
    broken = false
    await t.rejects(flaky('k2'), { code: 'key.unavailable' }, 'a key known to be gone refuses before the intent')
    t.same(await outcomes(), ['unsigned'])
    const issued = await (await process())('k1')
    t.same((await outcomes()).sort(), ['certificate', 'unsigned'])
    t.same(await faultsFound([{ key: 'k1', issued }]), [])
  },
)

t.test('a key of which nobody knows whether it has signed leaves its intent to be abandoned', async (t) => {
  const { process, endOpen, outcomes } = await open(t)
  const unsure = await process({
    key: (real) => ({
      ...real,
      sign: async (messages) =>
        isTrial(messages) ? real.sign(messages) : messages.map(() => new SigningFault('unknown', 'the module is gone')),
    }),
  })
  await t.rejects(unsure('k1'), { code: 'key.unavailable', kind: { retryable: true } })
  t.same(await outcomes(), [])
  t.equal(await endOpen(), 1)
  t.same(await outcomes(), ['abandoned'])
})

t.test('a signature that does not verify is never handed out, and its intent is abandoned', async (t) => {
  const { process, endOpen, outcomes, faultsFound } = await open(t)
  const faulty = await process({
    key: (real) => ({
      ...real,
      sign: async (messages) =>
        isTrial(messages) ? real.sign(messages) : real.sign(messages.map((m) => Buffer.concat([m, m]))),
    }),
  })
  await t.rejects(faulty('k1'), {
    code: 'key.bad_signature',
    cause: { message: 'the key of the issuer default signs what its certificate does not verify' },
  })
  for (const key of ['k2', 'k3']) await t.rejects(faulty(key), { code: 'key.unavailable' }, 'and before an intent')
  t.equal(await endOpen(), 1)
  t.same(await outcomes(), ['abandoned'])
  t.same(await faultsFound([]), [])
})

slowTest('a key that does not answer within its deadline is 503, and the intent is abandoned', async (t) => {
  const { process, endOpen, outcomes } = await open(t)
  const slow = await process({ key: dumb })
  await t.rejects(slow('k1'), { code: 'key.unavailable', kind: { retryable: true } })
  t.equal(await endOpen(), 1)
  t.same(await outcomes(), ['abandoned'])
})

slowTest(
  'a key that says after its deadline that it was not used: the intent is unsigned, and the retry issues',
  async (t) => {
    const { process, endOpen, outcomes, faultsFound } = await open(t)
    const gaveUp = Promise.withResolvers<void>()
    const queued = await process({
      key: (real) => ({
        ...real,
        sign: async (messages) => {
          if (isTrial(messages)) return real.sign(messages)
          await gaveUp.promise
          return messages.map(() => new SigningFault('before', 'no session was free in time'))
        },
      }),
    })
    await t.rejects(queued('k1'), { code: 'key.unavailable', kind: { retryable: true } })
    t.same(await outcomes(), [], 'until then nobody knows')
    const retry = (await process({ requestDeadlineMs: 10_000 }))('k1')
    gaveUp.resolve()
    const issued = await retry
    t.same((await outcomes()).sort(), ['certificate', 'unsigned'])
    t.equal(await endOpen(), 0)
    t.same(await faultsFound([{ key: 'k1', issued }]), [])
  },
)

slowTest('a key that signs after its deadline leaves its intent to be abandoned', async (t) => {
  const { process, endOpen, outcomes, faultsFound } = await open(t)
  const signed = Promise.withResolvers<void>()
  let late: Promise<unknown> = Promise.resolve()
  const slow = await process({
    key: (real) => ({
      ...real,
      sign: (messages) => {
        if (isTrial(messages)) return real.sign(messages)
        const answer = signed.promise.then(() => real.sign(messages))
        late = answer
        return answer
      },
    }),
  })
  await t.rejects(slow('k1'), { code: 'key.unavailable', kind: { retryable: true } })
  signed.resolve()
  await late
  t.equal(await endOpen(), 1)
  t.same(await outcomes(), ['abandoned'])
  t.same(await faultsFound([]), [])
})

t.test('many calls at once under one key end in one certificate, which all of them get', async (t) => {
  const { process, outcomes, faultsFound } = await open(t)
  const [one, other] = [await process(), await process()]
  const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => (i % 2 ? one : other)('k1')))
  t.equal(new Set(answers.map(({ serial }) => serial)).size, 1)
  t.equal(answers.filter(({ replayed }) => !replayed).length, 1)
  t.same(await outcomes(), ['certificate'])
  t.same(await faultsFound(answers.map((issued) => ({ key: 'k1', issued }))), [])
})

t.test('beyond the bound of those who wait nobody does, and whoever goes makes room', async (t) => {
  const { process } = await open(t)
  const gate = Promise.withResolvers<void>()
  const ask = await process({
    queue: 1,
    recorder: ({ findRequest }) => ({ findRequest: (...asked) => gate.promise.then(() => findRequest(...asked)) }),
  })
  const first = ask('k1')
  const second = Promise.race([ask('k2'), withinMs(500)])
  await t.rejects(second, { code: 'overload.queue', kind: { retryable: true } })
  gate.resolve()
  await first
  t.equal((await ask('k2')).replayed, false)
})

t.test('another request under the same key is refused', async (t) => {
  const { process, outcomes } = await open(t)
  const ask = await process()
  await ask('k1')
  await t.rejects(ask('k1', { validity: 3600 }), { code: 'idempotency.reused', kind: { status: 409 } })
  t.same(await outcomes(), ['certificate'])
})

t.test('what the database refuses of one item fails that item alone', async (t) => {
  const { process, outcomes } = await open(t)
  const poisoned = await process({
    recorder: (real) => ({
      recordIntent: (intent) => real.recordIntent(intent.request.key === 'bad' ? { ...intent, shard: -1 } : intent),
    }),
  })
  const results = await Promise.allSettled(['k1', 'bad', 'k2', 'k3'].map((key) => poisoned(key)))
  t.same(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled', 'fulfilled'],
  )
  t.same(await outcomes(), ['certificate', 'certificate', 'certificate'])
})

t.test('an intent is expected while it is drafted, and not once it is there or will not be', async (t) => {
  const { process, outcomes } = await open(t)
  const seen: string[] = []
  const watched = {
    recorder: (real: Recorder) => ({
      expectIntent: () => {
        const over = real.expectIntent()
        seen.push('expected')
        return () => {
          seen.push('over')
          over()
        }
      },
      recordIntent: (intent: Intent) => {
        seen.push('recorded')
        return real.recordIntent(intent)
      },
    }),
  }
  const issue = await process(watched)
  await issue('k1')
  t.same(seen.splice(0), ['expected', 'over', 'recorded'])
  await t.rejects(issue('k2', { validity: -1 }), { code: 'validity.forbidden' })
  t.same(seen.splice(0), ['expected', 'over'])
  const doubted = await process({ ...watched, verify: async () => false })
  await t.rejects(doubted('k3'), { code: 'csr.pop' })
  t.same(seen.splice(0), ['expected', 'over'])
  await issue('k1')
  t.same(seen, [], 'a replay brings none')
  t.same(await outcomes(), ['certificate'])
})

t.test('a draft that is refused waits for the check of the signature, whose reason goes before its own', async (t) => {
  const { process } = await open(t)
  const unhandled: unknown[] = []
  const note = (reason: unknown): void => void unhandled.push(reason)
  nodeProcess.on('unhandledRejection', note)
  t.teardown(() => nodeProcess.off('unhandledRejection', note))
  for (const [holds, code] of [
    [true, 'validity.forbidden'],
    [false, 'csr.pop'],
  ] as const) {
    const issue = await process({ verify: () => withinMs(50).then(() => holds) })
    await t.rejects(issue('k1', { validity: -1 }), { code })
  }
  t.same(unhandled, [])
})

t.test(
  'by a clock that is wrong, or while the roll is kept nowhere else, not even an intent is recorded',
  async (t) => {
    const { process, stores } = await open(t)
    const refuse = (code: 'clock.skewed' | 'roll.unanchored') => (): never => {
      throw new Problem(code, 'as of this test')
    }
    for (const [code, faults] of [
      ['clock.skewed', { assertClock: refuse('clock.skewed') }],
      ['roll.unanchored', { checkpoints: { assertAvailable: refuse('roll.unanchored') } }],
    ] as const)
      await t.rejects((await process(faults))('k1'), { code })
    t.equal((await stores.db.query({ text: 'select from intents' })).rowCount, 0)
  },
)

t.test('our own clock, wherever it goes, never dates an event', async (t) => {
  const { process, faultsFound, stores } = await open(t)
  const issue = await process()
  const first = await issue('k1')
  // As if our clock had stepped an hour ahead since the database's was last read.
  stores.dbClock.observe(new Date(Date.now() + 3_600_000), 0)
  const second = await issue('k2').catch((error: unknown) => error)
  const { time } = await stores.roll.head()
  t.ok(time.getTime() < Date.now() + 5_000, 'the roll is not ahead of the database')
  const third = await issue('k3')
  t.same(await faultsFound([first, third].map((issued, i) => ({ key: `k${2 * i + 1}`, issued }))), [])
  t.ok(second)
})

slowTest('a clock of ours that was set is found out by the intent, and nothing is signed by it', async (t) => {
  let aheadMs = 0
  const { process, endOpen, outcomes, stores } = await open(t, { clock: () => new Date(Date.now() + aheadMs) })
  const issue = await process()
  await issue('k1')
  const { time } = await stores.roll.head()
  // So that the newest event does not tell already. What a reading takes on a busy machine hides as much of a step back.
  while (Date.now() - time.getTime() < 3_000) await withinMs(20)
  for (const jumpMs of [3_600_000, -7_500]) {
    aheadMs = jumpMs
    await t.rejects(issue(`k ${jumpMs}`), { code: 'clock.skewed', kind: { retryable: true } })
    aheadMs = 0
    await stores.roll.head()
  }
  t.same((await outcomes()).sort(), ['certificate', 'unsigned', 'unsigned'])
  t.equal(await endOpen(), 0)
  await issue('k2')
})

t.test('the head cannot be moved without its entries, by anyone', async (t) => {
  const { stores } = await open(t)
  await t.rejects(
    stores.db.query({ text: 'update roll set size = size + 1' }),
    /head of the roll is not behind its last entry/,
  )
  await t.rejects(
    stores.db.query({ text: `update roll set time = time + interval '1 year'` }),
    /not behind its last entry/,
  )
})

// Faults ----------------------------------------------------------------------------------------------------------------

/** Runs the named statement once for real, and then behaves as if the connection had died before the answer. */
const loseAcknowledgement =
  (name: string) =>
  (real: Database): Database => {
    let pending = true
    const lose = (): never => {
      pending = false
      throw new Problem('db.unavailable', 'The connection died.', {
        cause: Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' }),
      })
    }
    return {
      load: real.load,
      close: real.close,
      apart: real.apart,
      query: async (statement, values) => {
        const result = await real.query(statement, values)
        return pending && statement.name === name ? lose() : (result as never)
      },
      transaction: async (work) => {
        let seen = false
        const value = await real.transaction((tx) =>
          work({
            query: (statement: Statement, values) => {
              seen ||= statement.name === name
              return tx.query(statement, values)
            },
          }),
        )
        return pending && seen ? lose() : value
      },
    }
  }

/** Never signs what it is asked to. */
const dumb = (real: SigningKey): SigningKey => ({
  ...real,
  sign: (messages) => (isTrial(messages) ? real.sign(messages) : forever),
})

const isTrial = (messages: readonly Buffer[]): boolean =>
  messages.every((message) => message.includes('trial signature'))

const until = async (done: () => boolean): Promise<void> => {
  while (!done()) await withinMs(5)
}

const csr = derFor('gap.example.com')
