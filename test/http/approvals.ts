/** What tests of approvals share: a profile that wants them, and people who give them. */
import { randomBytes } from 'node:crypto'

import { shardOf } from '../../src/ca/issuance/serial.ts'
import { openApprovalStore } from '../../src/db/approvals.ts'
import type { Queryable } from '../../src/db/database.ts'
import { openStores } from '../../src/server/stores.ts'
import { defaultShards } from '../../src/tlog/entries.ts'
import { quiet } from '../helpers/log.ts'
import type { Answer, TestService } from '../helpers/service.ts'
import { csrFor, employ } from './people.ts'

interface Teardown {
  teardown(close: () => Promise<void>): void
}

/** A copy of the profile `server` under another name, whose certificates so many must approve. */
export const wantApprovals = async (
  service: TestService,
  name: string,
  approvals: { readonly required: number; readonly expires?: string } | undefined,
  more: object = {},
): Promise<void> => {
  const { document } = (await service.request('GET', '/v1/profiles/server')).json
  const known = await service.request('GET', `/v1/profiles/${name}`)
  const headers = known.status === 200 ? { 'if-match': '*' } : { 'if-none-match': '*' }
  const body = { ...document, name, ...(approvals && { approvals }), ...more }
  const made = await service.request('PUT', `/v1/profiles/${name}`, { headers, body })
  if (made.status >= 300) throw new Error(made.text)
}

export interface People {
  readonly requester: string
  readonly alice: string
  readonly bob: string
  readonly carol: string
}

/** A requester and three approvers of the profiles. */
export const employApprovers = async (
  service: TestService,
  profiles: readonly string[],
  requester = 'ci',
): Promise<People> => ({
  requester: await employ(service, requester, 'requester', { profiles }),
  alice: await employ(service, 'alice', 'approver', { profiles }),
  bob: await employ(service, 'bob', 'approver', { profiles }),
  carol: await employ(service, 'carol', 'approver', { profiles }),
})

/** As if an instance had died while it issued what was approved; there is a certificate of `server` by its requester. */
export const leaveOpenIntent = async (db: Queryable, id: string): Promise<void> => {
  const text = `
    insert into intents (serial, principal, idempotency_key, attempt, digest, issuer, shard, profile, profile_version, tbs,
      plan, approval)
    select $1, r.principal, r.idempotency_key, 1, r.digest, i.issuer, $3::integer, r.profile, r.profile_version,
      decode(replace(encode(i.tbs, 'hex'), encode(i.serial, 'hex'), encode($1, 'hex')), 'hex'), r.plan, r.id
    from approval_requests r, (select * from intents where profile = 'server' limit 1) i where r.id = $2::uuid`
  const serial = Buffer.concat([Buffer.of(0x41), randomBytes(15)])
  const { rowCount } = await db.query({ text }, [serial, id, shardOf(serial, defaultShards)])
  if (rowCount !== 1) throw new Error('there is no certificate to make it from')
}

export const openDesk = (service: TestService) => {
  const ask = (
    token: string,
    profile: string,
    { key, ...more }: { readonly key?: string; readonly csr?: string; readonly [field: string]: unknown } = {},
  ): Promise<Answer> =>
    service.request('POST', '/v1/certificates', {
      token,
      headers: key === undefined ? {} : { 'idempotency-key': key },
      body: { csr: csrFor('pay.example.com'), profile, ...more },
    })
  const read = (token: string, id: string): Promise<Answer> => service.request('GET', `/v1/requests/${id}`, { token })
  const say =
    (what: 'approval' | 'rejection', on: TestService = service) =>
    (token: string, { id, digest }: { id: string; digest: string }, reason = 'as planned'): Promise<Answer> =>
      on.request('POST', `/v1/requests/${id}/${what}`, { token, body: { digest, reason } })
  const withdraw = (token: string, { id }: { id: string }, reason = 'the wrong name'): Promise<Answer> =>
    service.request('POST', `/v1/requests/${id}/withdrawal`, { token, body: { reason } })
  const eventsOf = async (id: string): Promise<Record<string, unknown>[]> => {
    const { items } = (await service.request('GET', '/v1/events?limit=1000')).json
    const entries = items.map(({ entry }: { entry: string }) => JSON.parse(entry) as Record<string, unknown>)
    return entries.filter((entry: Record<string, unknown>) => entry['id'] === id || entry['approval'] === id)
  }
  return {
    ask,
    read,
    approve: say('approval'),
    reject: say('rejection'),
    withdraw,
    on: (s: TestService) => say('approval', s),
    eventsOf,
  }
}

/** The records beside the service, as a replica that has died would have left them. */
export const openBeside = async (t: Teardown, { config, database }: TestService, clock?: () => Date) => {
  const stores = await openStores({ config, databaseUrl: database.servingUrl, log: quiet, ...(clock && { clock }) })
  t.teardown(async () => {
    stores.policies.close()
    stores.providers.close()
    await stores.db.close()
  })
  return { stores, store: openApprovalStore({ ...stores, proposed: () => {} }) }
}

/** Resolves when the request is in this state. */
export const untilState = async (read: () => Promise<Answer>, state: string): Promise<Answer['json']> => {
  for (const end = Date.now() + 20_000; Date.now() < end; ) {
    const { json } = await read()
    if (json.state === state) return json
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  throw new Error(`the request was not ${state} within 20 s: ${(await read()).text}`)
}
