/** What is done about requests that are due, and by whom. */
import t from 'tap'

import { type ApprovalStore, type ApprovalsDeps, type DueRequest, openApprovals } from '../../src/ca/approvals.ts'

/** What one look does about this one; `ends`: whether the records let it end. */
const followed = async (due: Partial<DueRequest>, { may = true, ends = true } = {}): Promise<readonly string[]> => {
  const done: string[] = []
  const store: Partial<ApprovalStore> = {
    figures: async () => ({ pending: 1, approved: 0, oldest: null }),
    due: async () => [{ id: 'x', isApproved: false, isLost: false, isDue: false, ...due }],
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
    [{ isApproved: true, isLost: true }, {}, ['failed', 'told failed']],
    [{ isDue: true }, { may: false }, []],
    [{ isApproved: true }, { may: false }, []],
  ] as const)
    t.same(await followed(due, how), done, JSON.stringify([due, how]))
})

t.test('one look ends all that are due, a few at a time, and one that fails keeps none of the others', async (t) => {
  const ids = Array.from({ length: 25 }, (_, i) => `${i}`)
  const ended: string[] = []
  const postponed: string[] = []
  const failed: string[] = []
  let atOnce = 0
  let most = 0
  const store: Partial<ApprovalStore> = {
    figures: async () => ({ pending: 25, approved: 0, oldest: null }),
    due: async () => ids.map((id) => ({ id, isApproved: false, isLost: false, isDue: true })),
    end: async (id) => {
      atOnce += 1
      most = Math.max(most, atOnce)
      await new Promise(setImmediate)
      atOnce -= 1
      if (id === '3') throw new Error('it is gone')
      return ended.push(id) > 0
    },
    postpone: async (id, why) => {
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
    ids.filter((id) => id !== '3'),
  )
  t.same(postponed, ['3 internal'])
  t.same(failed, ['3 it is gone', '3 so are the records'])
  t.ok(most > 1 && most < 25, `${most} at once`)
})
