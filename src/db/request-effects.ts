/** What entries of requests that people approve mean for the records of a recovery. */
import { canonicalJson } from '../lib/canonical-json.ts'
import type { Queryable } from './database.ts'
import { type EffectsOf, endedTodo, run } from './log-effect.ts'

interface Ended {
  readonly id: string
  readonly kind: 'rejected' | 'withdrawn' | 'expired' | 'failed'
  readonly time: string
  readonly by?: string
  readonly code?: string
  readonly reason?: string
}

/** None was being issued when it ended: what the backup has open for it, and no entry ends, was never signed. */
const end = async (tx: Queryable, { id, kind, time, by, code, reason }: Ended, index: number): Promise<void> => {
  await run(tx, insertUnsigned, [id, time])
  await run(tx, insertEnd, [id, kind, index, time, by ?? null, code ?? null, reason ?? null])
}

export const requestEffects: EffectsOf<
  | 'request.created'
  | 'request.approved'
  | 'request.rejected'
  | 'request.withdrawn'
  | 'request.expired'
  | 'request.failed'
> = {
  'request.created': {
    // What was asked is on no roll: it can be looked at, and ends without a certificate.
    apply: (tx, entry, { index }) => {
      const { id, principal, profile, request, decided, required, expires, time } = entry
      const values = [id, index, principal, request, profile.name, profile.version, canonicalJson(decided), required]
      return run(tx, insertRequest, [...values, time, expires])
    },
    todo: ({ id, principal }) => ({
      about: `request ${id}`,
      todo: `The request ${id} of ${principal}: what was asked is lost, and it will fail. Have it asked again, under another Idempotency-Key.`,
    }),
  },
  'request.approved': {
    apply: (tx, { id, by, reason, time }, { index }) => run(tx, insertApproval, [id, by, index, time, reason]),
  },
  'request.rejected': {
    apply: (tx, entry, { index }) => end(tx, { ...entry, kind: 'rejected' }, index),
    todo: endedTodo,
  },
  'request.withdrawn': {
    apply: (tx, entry, { index }) => end(tx, { ...entry, kind: 'withdrawn' }, index),
    todo: endedTodo,
  },
  'request.expired': {
    apply: (tx, { id, time }, { index }) => end(tx, { id, time, kind: 'expired' }, index),
    todo: endedTodo,
  },
  'request.failed': {
    apply: (tx, { id, code, reason, time }, { index }) => end(tx, { id, code, reason, time, kind: 'failed' }, index),
    todo: endedTodo,
  },
}

const insertRequest = `
  insert into approval_requests (id, entry, principal, digest, profile, profile_version, decided, plan, required, created_at,
    expires_at)
  values ($1, $2, $3, decode($4, 'hex'), $5, $6, $7::text, sha256(convert_to($7::text, 'UTF8')), $8, $9, $10)`
const insertApproval = `
  insert into approvals (request, principal, entry, at, reason) values ($1, $2, $3, $4, $5)`
const insertUnsigned = `
  insert into outcomes (serial, kind, at)
  select i.serial, 'unsigned', $2::timestamptz from intents i
  where i.approval = $1::uuid and not exists (select from outcomes o where o.serial = i.serial)`
const insertEnd = `
  insert into approval_ends (request, kind, entry, at, by, code, reason) values ($1, $2, $3, $4, $5, $6, $7)`
