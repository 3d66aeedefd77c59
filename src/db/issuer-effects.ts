/** What entries of issuers, their profiles and the PINs of their tokens mean for the records of a recovery. */
import { type IssuerMoved, shardsIn } from '../tlog/entries.ts'
import type { EntryOf } from '../tlog/forms.ts'
import type { Queryable } from './database.ts'
import { type EffectsOf, run } from './log-effect.ts'

const move = (to: string) => ({
  apply: (tx: Queryable, { issuer, by, reason, time }: EntryOf<IssuerMoved['type']>) =>
    run(tx, insertState, [issuer, to, by, reason, time]),
})

export const issuerEffects: EffectsOf<
  | 'profile.changed'
  | 'issuer.created'
  | IssuerMoved['type']
  | 'issuer.requested'
  | 'issuer.chained'
  | 'issuer.relocated'
  | 'pin.refused'
  | 'pin.unlatched'
> = {
  'profile.changed': {
    apply: async (tx, entry, { sources }) => {
      const { profile, sha256, by, time } = entry
      const found = sources.profile(sha256)
      const { rows } = await tx.query<{ authority: string }>({ text: selectAuthorityOf }, [profile.name])
      const authority = found?.authority ?? rows[0]?.authority ?? 'default'
      const { document, ...other } = found ?? sources.standIn(entry, authority)
      const digest = 'sha256' in other ? other.sha256 : sha256
      await run(tx, insertProfile, [profile.name, profile.version, digest, authority, document, time, by])
    },
    todo: ({ profile: { name, version }, sha256 }, sources) => ({
      about: `profile ${name}`,
      todo: sources.profile(sha256)
        ? null
        : `The profile ${name}, version ${version}: its document (SHA-256 ${sha256}) is lost, and what stands in for it allows nothing. Apply it again with "chancery profile apply".`,
    }),
  },
  'issuer.created': {
    apply: async (tx, entry, { index, sources }) => {
      const { issuer, authority, certificate, state, by, time } = entry
      const known = sources.issuer(issuer)
      if (!known) throw new Error(`entry ${index} is of the issuer ${issuer}, whose chain is not known`)
      const { chain, keyUri, keySha256, publicUrl } = known
      const der = Buffer.from(certificate, 'base64')
      await run(tx, insertAuthority, [authority, time])
      await run(tx, insertIssuer, [issuer, authority, der, chain, keyUri, publicUrl, shardsIn(entry), time])
      await run(tx, insertKey, [keySha256, issuer, time])
      await run(tx, insertState, [issuer, state, by, null, time])
    },
  },
  'issuer.activated': move('active'),
  'issuer.retiring': move('retiring'),
  'issuer.closed': move('crl-only'),
  'issuer.halted': move('crl-only'),
  'issuer.discarded': move('retired'),
  'issuer.retired': move('retired'),
  'issuer.requested': {
    // Its key is nobody else's, whatever becomes of the request.
    apply: (tx, { issuer, spki, time }) => run(tx, insertKey, [spki, issuer, time]),
    todo: ({ issuer, key }) => ({
      about: `request ${issuer}`,
      todo: `The request for the issuer ${issuer}: its CSR is lost, its key was made at ${key} (what was corrected of that since: "chancery events --type issuer.relocated"). Make another one with "chancery issuer create" unless its certificate has come.`,
    }),
  },
  'issuer.chained': {
    apply: async (tx, { issuer, chains }, { index, sources }) => {
      const ways = chains.map((digests) => digests.slice(1).map(sources.authorityCertificate))
      // What is told below: then the ways of before stay.
      if (ways.some((way) => way.includes(undefined))) return
      for (const [place, way] of ways.entries()) await run(tx, insertChain, [index, place, issuer, way])
    },
    todo: ({ issuer, chains }, sources) => ({
      about: `chains ${issuer}`,
      todo: chains.flat().some((digest) => !sources.authorityCertificate(digest))
        ? `The ways up from the issuer ${issuer}: bring them again with "chancery issuer chains".`
        : null,
    }),
  },
  'issuer.relocated': {
    apply: (tx, { issuer, key }, { index }) => run(tx, insertKeyUri, [index, issuer, key]),
  },
  'pin.refused': {
    // Which PIN it was is lost: the token is not asked before an operator has said so.
    apply: (tx, { token, tokenSerial, time }) => run(tx, insertWithheld, [token, tokenSerial, time]),
    todo: ({ token, tokenSerial }) => ({
      about: `pin ${token} ${tokenSerial}`,
      todo: `The token ${token} has refused a PIN: see that the right one is in its file, then "chancery key unlatch ${token}".`,
    }),
  },
  'pin.unlatched': {
    apply: (tx, { token, tokenSerial, by, time }) => run(tx, insertUnlatched, [token, tokenSerial, by, time]),
    todo: ({ token, tokenSerial }) => ({ about: `pin ${token} ${tokenSerial}`, todo: null }),
  },
}

const selectAuthorityOf = `
  select authority from (
    (select authority, 1 as rank from profiles where name = $1 order by version desc limit 1)
    union all (select authority, 2 from issuers order by created_at, name limit 1)
  ) known order by rank limit 1`
const insertProfile = `
  insert into profiles (name, version, sha256, authority, document, created_at, created_by)
  values ($1, $2, decode($3, 'hex'), $4, $5, $6, $7)`
const insertAuthority = 'insert into authorities (name, created_at) values ($1, $2) on conflict (name) do nothing'
const insertIssuer = `
  insert into issuers (name, authority, certificate, chain, key_uri, public_url, shards, created_at)
  values ($1, $2, $3, $4::bytea[], $5, $6, $7, $8)`
const insertKey = `
  insert into issuer_keys (key_sha256, issuer, created_at) values (decode($1, 'hex'), $2, $3) on conflict do nothing`
const insertState = 'insert into issuer_states (issuer, state, by, reason, at) values ($1, $2, $3, $4, $5)'
const insertChain = 'insert into issuer_chains (entry, place, issuer, chain) values ($1, $2, $3, $4::bytea[])'
const insertKeyUri = 'insert into issuer_key_uris (entry, issuer, key_uri) values ($1, $2, $3)'
const insertWithheld = `
  with try as (insert into pin_tries (token, serial, at) values ($1, $2, $3) returning id)
  insert into pin_tries_ended (try, outcome, at) select id, 'withheld', $3 from try`
const insertUnlatched = 'insert into unlatched_tokens (token, serial, by, at) values ($1, $2, $3, $4)'
