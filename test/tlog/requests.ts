/** Events of requests that people must approve, of the profiles `vault-1` and `vault-2`. */
import { hash } from 'node:crypto'

import { canonicalJson } from '../../src/lib/canonical-json.ts'
import type { RequestDecided, RollEvent } from '../../src/tlog/entries.ts'
import { digest, event, issuer } from './world.ts'

/** Of the profile `vault-1` or `vault-2`, which want so many approvals. */
export const vault = (required: number, version = 1) => ({ name: `vault-${required}`, version })
/** What every certificate of these tests says, as people were shown it. */
export const decided = {
  extendedKeyUsage: ['serverAuth'],
  keyUsage: ['digitalSignature'],
  issuer: issuer.name,
  key: issuer.spki,
  names: [{ kind: 'dns', value: 'web.example.com' }],
  subject: [{ type: 'commonName', value: 'web.example.com' }],
  validity: 30 * 86_400 + 1,
}
export const digestOf = (value: unknown): string => hash('sha256', canonicalJson(value))
export const plan = digestOf(decided)
export const created = (id: string, required: number, more: object = {}): RollEvent => ({
  type: 'request.created',
  id,
  principal: 'admin',
  profile: vault(required),
  request: digest,
  plan,
  decided,
  required,
  expires: '2026-11-25T00:00:00.000Z',
  ...more,
})
export const approved = (id: string, by: string, of = plan): RollEvent => ({
  type: 'request.approved',
  id,
  plan: of,
  reason: 'x',
  by,
})
export const ended = (what: 'rejected' | 'withdrawn', id: string, by: string): RollEvent => ({
  ...(approved(id, by) as RequestDecided),
  type: `request.${what}`,
})
export const wanting = (required: number, version = 1): RollEvent => ({
  ...{
    type: 'profile.changed',
    profile: vault(required, version),
    sha256: digest,
    approvals: required,
    by: 'admin',
  },
})
export const granted = (
  principal: string,
  profiles: readonly string[],
  change: 'created' | 'revoked' = 'created',
): RollEvent => ({
  ...{ type: 'grant.changed', change, grant: `of ${principal}`, principal, role: 'approver', profiles },
  ...{ names: null, revoke: false, limits: null, onBehalfOf: null, sharedKeys: false, by: 'admin' },
})
export const closed = (principal: string): RollEvent => ({ type: 'principal.disabled', principal, by: 'admin' })
export const approvedIssue = (id: string, required: number, more: object = {}): RollEvent =>
  event.issued(91, { approval: id, profile: vault(required), plan, ...more })
