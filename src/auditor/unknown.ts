/**
 * What no entry says of the records, and why: whoever verifies the roll cannot know whether it was altered. docs/roll.md is
 * tested against this table both ways, and this table against the schema. `*`: all columns.
 */
export const unknown: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  accesses: { '*': 'who has looked at what: rows, and no entries' },
  approval_ends: {
    at: 'the entry has its own time',
    '*': 'of what was issued: the entry of its certificate names the request',
  },
  approval_requests: {
    ask: 'only its digest is on the roll; what comes of it must be the plan, which is',
    idempotency_key: "a caller's word for its request",
  },
  approval_standings: { '*': 'where the other tables say that a request stands, to be found faster' },
  authorities: { '*': 'a name is there when the first issuer of it is, and that has an entry' },
  credential_revocations: { revoked_at: 'the entry has its own time' },
  credentials: { created_at: 'the entry has its own time' },
  crl_files: { '*': 'a cache; each list is signed' },
  grant_revocations: { revoked_at: 'the entry has its own time' },
  grants: { created_at: 'the entry has its own time' },
  identity_providers: { created_at: 'the entry has its own time' },
  intents: {
    idempotency_key: "a caller's word for its request; that of a certificate must be the same in `outcomes`",
    attempt: 'how often that was tried',
    created_at: 'of what became a certificate; an abandoned one has it in its entry',
    shard: 'where the certificate names no list',
    replaces: 'of an abandoned one; a renewal that became a certificate has it in its entry',
    origin: 'of an abandoned one; of what became a certificate it is in the entry',
    first: 'the same; else it must be what the records of the renewed certificate say',
    tbs: 'of an abandoned one, but for its serial and its end: nobody got what may have been signed',
    names: 'what counts for limits: altering it lets more through, and what is issued has entries',
    not_after: 'the same',
    '*': 'of what was not signed, or has not ended: no entry tells of it',
  },
  issuer_keys: { created_at: 'the entry has its own time' },
  issuer_requests: {
    csr: 'the entry has its key, and the certificate that came of it',
    created_at: 'the entry has its own time',
  },
  issuer_states: { id: 'their order is compared', at: 'the entry has its own time' },
  issuers: {
    chain: 'as it came with the certificate; each link is signed, and what is brought later has an entry',
    key_uri: 'where a key is says nothing of it: it must be that of the certificate',
    public_url: 'stands in every certificate',
    created_at: 'the entry has its own time',
  },
  key_owners: { '*': 'who may have certificates for a key: altering it lets another have one, which has an entry' },
  leases: { '*': 'a courtesy among instances' },
  mass_revocation_outcomes: {
    number: 'of each slice; the sums of an order that is done are in its entry',
    at: 'the revocations have entries with times',
  },
  mass_revocation_slices: {
    number: 'that all are there is compared',
    certificates: 'which those of an order are is in its entry by digest; only their number is compared',
  },
  mass_revocations: { slices: 'how the set was cut; that all slices are there is compared' },
  outcomes: {
    at: 'of an abandoned one',
    '*': 'of what was not signed: no entry tells of it',
  },
  principal_closures: { closed_at: 'the entry has its own time' },
  principals: { created_at: 'the entry has its own time' },
  profiles: { created_at: 'the entry has its own time', approvals: 'PostgreSQL makes it of the document' },
  reconciled: { '*': 'a cache' },
  refusal_counts: { '*': 'refusals are rows, and no entries' },
  refusals: { '*': 'rows, and no entries' },
  replicas: { '*': 'which instances are alive' },
  roll: { id: 'there is one row' },
  schema_migrations: { '*': 'the schema, which says nothing of what is in it' },
  spent_tokens: { '*': 'which tokens of others were shown: rows for a day, and no entries' },
  token_revocations: { revoked_at: 'the entry has its own time' },
  token_uses: { '*': 'a cache' },
  tokens: {
    sha256:
      'the digest of a secret is on no roll: whoever may write here can give a token another secret, and what he then does has entries under its principal',
    created_at: 'the entry has its own time',
  },
}
