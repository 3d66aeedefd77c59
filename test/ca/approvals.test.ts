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
