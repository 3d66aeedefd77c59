/** What entries of who may ask, and by what he is known, mean for the records of a recovery. */
import { canonicalJson } from '../lib/canonical-json.ts'
import { type EffectsOf, run } from './log-effect.ts'
import { lostDigest } from './lost-tokens.ts'

export const accessEffects: EffectsOf<
  | 'provider.changed'
  | 'principal.created'
  | 'principal.disabled'
  | 'grant.changed'
  | 'token.created'
  | 'token.revoked'
  | 'credential.created'
  | 'credential.revoked'
> = {
  'provider.changed': {
    // Its document is on no roll: what stands in for it believes no token.
    apply: (tx, { provider: { name, version }, by, time }) => {
      const issuer = `https://${name}.lost.invalid`
      const document = canonicalJson({
        name,
        issuer,
        keys: { discovery: true },
        algorithms: ['RS256'],
        audience: 'lost',
        lifetime: '1s',
        mappings: [],
      })
      return run(tx, insertProvider, [name, version, issuer, document, time, by])
    },
    todo: ({ provider: { name, version } }) => ({
      about: `identity provider ${name}`,
      todo: `The identity provider ${name}, version ${version}: its document is lost, and no token of it is believed. Apply it again with "chancery identity-provider apply".`,
    }),
  },
  'principal.created': {
    apply: (tx, { principal, by, time }) => run(tx, insertPrincipal, [principal, by, time]),
  },
  'principal.disabled': {
    apply: (tx, { principal, by, time }) => run(tx, insertClosure, [principal, by, time]),
  },
  'grant.changed': {
    apply: async (tx, entry) => {
      const { change: what, grant, principal, role, profiles, names, by, time } = entry
      if (what === 'revoked') return run(tx, insertGrantRevocation, [grant, by, time])
      // Entries of version 1 have none of these, those of version 2 no limits, those of version 3 no origins.
      const revoke = 'revoke' in entry && entry.revoke === true
      const limits = 'limits' in entry && entry.limits !== null ? JSON.stringify(entry.limits) : null
      const origins = 'onBehalfOf' in entry ? JSON.stringify(entry.onBehalfOf) : null
      const rules = names === null ? null : JSON.stringify(names)
      await run(tx, insertGrant, [grant, principal, role, profiles, rules, revoke, limits, origins, by, time])
    },
  },
  'token.created': {
    apply: (tx, { token, principal, label, expires, by, time }, { sources }) =>
      run(tx, insertToken, [token, principal, label, lostDigest(sources.random), expires, by, time]),
    todo: ({ token, principal, label }) => ({
      about: `token ${token}`,
      todo: `The token ${JSON.stringify(label)} of ${principal}: its secret is in no record, and it works no more. Create another one with "chancery token create".`,
    }),
  },
  'token.revoked': {
    apply: (tx, { token, by, time }) => run(tx, insertTokenRevocation, [token, by, time]),
    todo: ({ token }) => ({ about: `token ${token}`, todo: null }),
  },
  'credential.created': {
    apply: async (tx, { credential, principal, label, fingerprint, spiffe, subject, by, time }) => {
      const [kind, value] =
        fingerprint !== null
          ? ['fingerprint', Buffer.from(fingerprint, 'hex')]
          : spiffe !== null
            ? ['spiffe', Buffer.from(spiffe)]
            : ['subject', Buffer.from(subject?.name ?? '', 'base64')]
      const issuer = subject && Buffer.from(subject.issuer, 'base64')
      await run(tx, insertCredential, [credential, principal, label, kind, value, issuer, by, time])
    },
  },
  'credential.revoked': {
    apply: (tx, { credential, by, time }) => run(tx, insertCredentialRevocation, [credential, by, time]),
  },
}

const insertProvider = `
  insert into identity_providers (name, version, sha256, issuer, document, created_at, created_by)
  values ($1, $2, sha256(convert_to($4::text, 'UTF8')), $3, $4::text, $5, $6)`
const insertPrincipal = 'insert into principals (name, created_by, created_at) values ($1, $2, $3)'
const insertClosure = 'insert into principal_closures (principal, closed_by, closed_at) values ($1, $2, $3)'
const insertGrant = `
  insert into grants (id, principal, role, profiles, names, revoke, limits, on_behalf_of, created_by, created_at)
  values ($1, $2, $3, $4::text[], $5::jsonb, $6, $7::jsonb, $8::jsonb, $9, $10)`
const insertGrantRevocation = 'insert into grant_revocations (grant_id, revoked_by, revoked_at) values ($1, $2, $3)'
const insertToken = `
  insert into tokens (id, principal, label, sha256, expires_at, created_by, created_at)
  values ($1, $2, $3, $4, $5, $6, $7)`
const insertTokenRevocation = `
  insert into token_revocations (token, revoked_by, revoked_at) values ($1, $2, $3)`
const insertCredential = `
  insert into credentials (id, principal, label, kind, value, issuer, created_by, created_at)
  values ($1, $2, $3, $4, $5, $6, $7, $8)`
const insertCredentialRevocation =
  'insert into credential_revocations (credential, revoked_by, revoked_at) values ($1, $2, $3)'
