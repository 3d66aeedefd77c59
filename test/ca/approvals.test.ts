/** What is done about requests that are due, and by whom. */
import t from 'tap'

import type { Caller } from '../../src/ca/access/access.ts'
import {
  type ApprovalStore,
  type ApprovalsDeps,
  type DueRequest,
  openApprovals,
} from '../../src/ca/approvals/approvals.ts'
import { Problem } from '../../src/errors.ts'

/** What one look does about this one; `ends`: whether the records let it end. */
const followed = async (due: Partial<DueRequest>, { may = true, ends = true } = {}): Promise<readonly string[]> => {
  const done: string[] = []
  const store: Partial<ApprovalStore> = {
    figures: async () => ({ pending: 1, approved: 0, oldest: null }),
    due: async () => [{ id: 'x', isApproved: false, isDue: false, ...due }],
    read: async () => void done.push('read'),
    end: async (_id, { kind }) => {
      done.push(kind)
      return ends
    },
    postpone: async () => void done.push('postponed'),
  }
  const deps: Partial<ApprovalsDeps> = {
    store: store as ApprovalStore,
    ended: (kind) => done.push(`told ${kind}`),
    failed: () => done.push('failed'),
  }
  const approvals = openApprovals(deps as ApprovalsDeps)
  await approvals.follow(async () => may)
  t.equal(approvals.figures.pending, 1, 'measured by whoever looks')
  return done
}

t.test('what is due ends, or is put off, once, and by whoever may act', async (t) => {
  for (const [due, how, done] of [
    [{ isDue: true }, {}, ['expired', 'told expired']],
    [{ isDue: true }, { ends: false }, ['expired', 'postponed']],
    [{ isApproved: true }, {}, ['read']],
    [{ isApproved: true, isDue: true }, {}, ['read', 'expired', 'told expired']],
    [{ isDue: true }, { may: false }, []],
    [{ isApproved: true }, { may: false }, []],
  ] as const)
    t.same(await followed(due, how), done, JSON.stringify([due, how]))
})

t.test('where nothing is due nobody’s turn is asked for', async (t) => {
  const store: Partial<ApprovalStore> = {
    figures: async () => ({ pending: 1, approved: 0, oldest: null }),
    due: async () => [],
  }
  let asked = 0
  await openApprovals({ store } as ApprovalsDeps).follow(async () => {
    asked += 1
    return true
  })
  t.equal(asked, 0)
})

t.test('one look ends all that are due, a few at a time, and one that fails keeps none of the others', async (t) => {
  const ids = Array.from({ length: 25 }, (_, i) => `${i}`)
  const failing = ['3', '24']
  const ended: string[] = []
  const postponed: string[] = []
  const failed: string[] = []
  let atOnce = 0
  let most = 0
  const store: Partial<ApprovalStore> = {
    figures: async () => ({ pending: 25, approved: 0, oldest: null }),
    due: async () => ids.map((id) => ({ id, isApproved: false, isDue: true })),
    end: async (id) => {
      atOnce += 1
      most = Math.max(most, atOnce)
      await new Promise(setImmediate)
      atOnce -= 1
      if (failing.includes(id)) throw new Error('it is gone')
      return ended.push(id) > 0
    },
    postpone: async (id, why) => {
      await new Promise(setImmediate)
      postponed.push(`${id} ${why?.code}`)
      throw new Error('so are the records')
    },
  }
  const deps: Partial<ApprovalsDeps> = {
    store: store as ApprovalStore,
    ended: () => {},
    failed: (id, error) => failed.push(`${id} ${(error as Error).message}`),
  }
  await openApprovals(deps as ApprovalsDeps).follow(async () => true)
  t.same(
    ended,
    ids.filter((id) => !failing.includes(id)),
  )
  t.same(postponed, ['3 internal', '24 internal'])
  t.same(failed, ['3 it is gone', '3 so are the records', '24 it is gone', '24 so are the records'])
  t.ok(most > 1 && most < 25, `${most} at once`)
})

t.test('what becomes of one that is carried out is told once it is so', async (t) => {
  const carriedOut = async (
    issueApproved: () => Promise<{ serial: string }>,
    { ends = true, isGone = false, serial = null as string | null } = {},
  ) => {
    const done: string[] = []
    let isFresh = false
    const record = async (what: string): Promise<void> => {
      await new Promise(setImmediate)
      done.push(what)
      if (isGone && !what.startsWith('postponed')) throw new Error('no records')
    }
    const store: Partial<ApprovalStore> = {
      figures: async () => ({ pending: 0, approved: 1, oldest: null }),
      due: async () => [{ id: 'x', isApproved: true, isDue: false }],
      read: async () =>
        ({ state: serial === null ? 'approved' : 'issued', serial, profile: {}, approvals: [], digest: '' }) as never,
      asked: async () => ({ input: {}, vouched: null }) as never,
      grantsOf: async () => [],
      end: async (_id, ending) => {
        await record(`${ending.kind} ${ending.kind === 'failed' ? ending.reason : ''}`)
        return ends
      },
      endIssued: (_id, issued) => record(`issued ${issued}`),
      postpone: (_id, why) => record(`postponed ${why?.code}: ${why?.detail}`),
    }
    const deps = {
      ...{ store, issuance: { issueApproved: () => (isFresh ? issueApproved() : done.push('by what was known')) } },
      refresh: async () => {
        await new Promise(setImmediate)
        isFresh = true
      },
      ended: (kind: string) => done.push(`told ${kind}`),
      failed: (_id: string, error: Error) => done.push(`log ${error.message}`),
    }
    await openApprovals(deps as never as ApprovalsDeps).follow(async () => true)
    return done
  }
  const fail = (error: Error) => async () => Promise.reject(error)
  const issue = async () => ({ serial: 'ab' })
  t.same(await carriedOut(issue), ['issued ab', 'told issued'])
  t.same(await carriedOut(issue, { serial: 'cd' }), ['issued cd'], 'it was before, and is not issued again')
  const closed = new Problem('approval.closed', 'it has ended')
  t.same(
    await carriedOut(fail(closed)),
    ['postponed approval.closed: it has ended'],
    'somebody else has ended it: no fault',
  )
  const fault = 'postponed internal: A fault of ours: the log has more.'
  t.same(await carriedOut(fail(new Error('a defect'))), ['log a defect', fault])
  const defect = new Problem('internal', 'a defect')
  t.same(await carriedOut(fail(defect)), ['log internal: a defect', 'postponed internal: a defect'])
  const unavailable = new Problem('key.unavailable', 'the token is gone')
  t.same(await carriedOut(fail(unavailable)), [
    `log ${unavailable.message}`,
    'postponed key.unavailable: the token is gone',
  ])
  const refused = new Problem('auth.forbidden', 'no grant')
  const end = 'failed auth.forbidden: no grant'
  t.same(await carriedOut(fail(refused)), [end, 'told failed'])
  t.same(await carriedOut(fail(refused), { ends: false }), [end], 'it has ended otherwise: that is not counted')
  for (const [how, what] of [
    [{ serial: null }, 'issued ab'],
    [{ serial: 'cd' }, 'issued cd'],
  ] as const)
    t.same(await carriedOut(issue, { ...how, isGone: true }), [what, 'log no records', fault], 'it is tried again')
})

t.test(
  'who asked may what the records let it, and what its token brought along for as long as that holds',
  async (t) => {
    for (const holds of [true, false]) {
      const store = {
        figures: async () => ({ pending: 0, approved: 1, oldest: null }),
        due: async () => [{ id: 'x', isApproved: true, isDue: false }],
        read: async () => ({ state: 'approved', principal: 'ci', profile: {}, approvals: [], digest: '' }),
        asked: async () => ({ input: {}, vouched: { provider: 'idp', version: 1, grants: [{ id: 'brought' }] } }),
        grantsOf: async () => [{ id: 'own' }],
        holds: async () => holds,
        endIssued: async () => {},
      }
      const told: unknown[] = []
      const tell = ({ principal, grants }: Caller) => told.push([principal, ...grants.map(({ id }) => id)])
      const issueApproved = async (caller: Caller) => {
        tell(caller)
        tell((await caller.again?.()) as Caller)
        return { serial: 'ab' }
      }
      const deps = { store, issuance: { issueApproved }, refresh: async () => {}, ended: () => {}, failed: t.fail }
      await openApprovals(deps as never as ApprovalsDeps).follow(async () => true)
      const may = ['ci', 'own', ...(holds ? ['brought'] : [])]
      t.same(told, [may, may], 'also when that is asked again')
    }
  },
)
