/**
 * Every problem that Chancery answers with, in one table: code → status, title, whether to try again, what to do next.
 * The HTTP layer turns a `Problem` into an RFC 9457 document; `docs/errors.md` is tested against this table both ways.
 * Nothing else throws domain errors; any other exception is a defect and becomes a bare 500 and a log line.
 */

export interface ProblemKind {
  readonly status: number
  readonly title: string
  /** May the same request succeed later without being changed? Controllers live by this. */
  readonly retryable: boolean
  /** What the caller does next, one sentence. */
  readonly next: string
}

/** One check that failed: which, where, on what value, and why. */
export interface Violation {
  readonly check: string
  /** A JSON pointer (RFC 6901), or '' for all of it. */
  readonly field: string
  readonly value: string
  readonly reason: string
}

/** The detail of a refusal is mostly the first of them, in a sentence; another one may begin with the same words. */
export const isToldIn = (detail: string, { check, field, value, reason }: Violation): boolean => {
  const told = `The check ${check} failed${value && ` for ${JSON.stringify(value)}`}${field && ` at ${field}`}: ${reason}`
  return detail === told || detail === `${told}.`
}

export interface ProblemOptions {
  readonly violations?: readonly Violation[]
  /** Seconds until a retry is worth it; sent as Retry-After. */
  readonly retryAfter?: number
  /** Offset in the decoded input, in octets, where a parser stopped. */
  readonly offset?: number
  /** Further members of the problem document (RFC 9457 3.2), e.g. the list of all checks. */
  readonly extra?: Readonly<Record<string, unknown>>
  /** For the log only, as `cause`: in a word, which of several ways to come to this code. */
  readonly reason?: string
  /** For the log only; never leaves the process. */
  readonly cause?: unknown
}

const bad = (title: string, next: string): ProblemKind => ({ status: 400, title, retryable: false, next })
const refused = (title: string, next: string): ProblemKind => ({ status: 422, title, retryable: false, next })
const unproven = (title: string, next: string): ProblemKind => ({ status: 401, title, retryable: false, next })
const tooMany = (title: string, next: string): ProblemKind => ({ status: 429, title, retryable: true, next })
const later = (title: string, next: string): ProblemKind => ({ status: 503, title, retryable: true, next })

export const problems = {
  // Reading the request: bytes that are not what they claim to be.
  'csr.pem': bad('Not one PEM certificate request', 'Send exactly one CERTIFICATE REQUEST block and nothing else.'),
  'csr.key_material': bad('Private key material received', 'Treat that key as exposed: make a new one, and send only the request.'),
  'csr.der': bad('Not strict DER', 'Encode the request in DER (X.690); the offset says where it stops being DER.'),
  'csr.version': bad('Unknown PKCS#10 version', 'Send version 0 (RFC 2986 4.1).'),
  'csr.attribute': bad('Malformed request attribute', 'Send at most one extensionRequest attribute with one value.'),
  'csr.sig_alg': bad('Signature algorithm not accepted', 'Sign the request by the algorithm of its key, with SHA-256, SHA-384 or SHA-512.'),
  'csr.pop': bad('Proof of possession failed', 'Sign the request with the private key of the public key in it.'),
  'csr.too_large': { status: 413, title: 'Request too large', retryable: false, next: 'Keep the body under 64 KiB and the request under 16 KiB of DER.' },
  'request.malformed': bad('Malformed request', 'Mend what the detail and any violations say; unknown fields are errors.'),
  'request.cursor': bad('Unknown cursor', 'Use a cursor as it was returned, with the same filters.'),
  'request.media_type': { status: 415, title: 'Media type not accepted', retryable: false, next: 'Use one of the media types that the description lists for this call.' },
  'request.not_acceptable': { status: 406, title: 'No representation is acceptable', retryable: false, next: 'Ask for a media type that the description lists for this call.' },
  'request.too_large': { status: 413, title: 'Body too large', retryable: false, next: 'Send a smaller body; docs/api.md lists the bounds.' },
  'request.uri': { status: 414, title: 'Path too long', retryable: false, next: 'Send shorter names in the path, or a body instead of a query.' },
  'request.headers': { status: 431, title: 'Header fields too large', retryable: false, next: 'Send less than 16 KiB of header fields.' },
  'request.timeout': { status: 408, title: 'The request took too long to arrive', retryable: true, next: 'Send the whole request within ten seconds.' },
  'request.method': { status: 405, title: 'Method not allowed', retryable: false, next: 'Use a method that the Allow header lists.' },
  'request.not_found': { status: 404, title: 'No such resource', retryable: false, next: 'Check the path and the name in it.' },

  // The key: judged on its DER, before OpenSSL sees it.
  'key.encoding': refused('Malformed public key', 'Encode the key as RFC 3279, 5480, 8410 or 9881 says.'),
  'key.unsupported': refused('Key algorithm not supported', 'Use RSA, P-256, P-384, P-521, Ed25519 or ML-DSA.'),
  'key.type': refused('Key type not allowed by the profile', 'Use a key type that the profile lists.'),
  'key.size': refused('Key size not allowed', 'Use RSA of 2048, 3072, 4096 or 8192 bits that the profile allows.'),
  'key.weak': refused('Weak key', 'Make a new key with a sound generator.'),
  'key.blocked': refused('Blocked key', 'Make a new key; this one is known to be compromised or is not yours to certify.'),
  'key.in_use': { status: 409, title: 'The key belongs to another', retryable: false, next: 'Make a new key, or ask an administrator for a grant with sharedKeys.' },

  // Names and subject.
  'subject.syntax': refused('Malformed subject', 'Use well-formed, single-valued attributes within the bounds of RFC 5280 appendix A.'),
  'subject.forbidden': refused('Subject not allowed', 'Ask for a subject that the profile and your grant allow.'),
  'san.syntax': refused('Malformed subject alternative name', 'Use names in their preferred form (RFC 5280 4.2.1.6).'),
  'san.ip_as_dns': refused('An IP address in a DNS name', 'Put addresses into iPAddress names.'),
  'san.duplicate': refused('A name occurs twice', 'Name each name once; case does not distinguish DNS names.'),
  'san.count': refused('Too many names', 'Ask for fewer names, or split them over several certificates.'),
  'san.empty': refused('No names', 'Leave the extension out, or put at least one name into it.'),
  'san.type': refused('Kind of name not accepted', 'Use DNS names, IP addresses, URIs or mail addresses.'),
  'san.forbidden': refused('Name not allowed', 'Ask for names that the profile and your grant allow.'),
  'san.required': refused('A required name is missing', 'Add a name of a kind that the profile requires.'),

  // Extensions and validity.
  'ext.syntax': refused('Malformed extension', 'Encode the extension as RFC 5280 says.'),
  'ext.duplicate': refused('An extension occurs twice', 'Send each extension once (RFC 5280 4.2).'),
  'ext.forbidden': refused('Extension not allowed', 'Leave the extension out; the profile decides what a certificate contains.'),
  'ext.usage': refused('Usage not allowed by the profile', 'Ask for usages that the profile grants, or for none.'),
  'validity.forbidden': refused('Validity not allowed by the profile', 'Ask for a validity within the bounds of the profile.'),
  'validity.issuer': refused('The certificate would outlive its issuer', 'Ask for a shorter validity; an operator should rotate the issuer.'),
  'policy.bind': refused('Names are not tied as the profile demands', 'Ask for the names that belong to this subject or caller.'),
  'policy.rule': refused('A rule of the profile refuses the request', 'See the message of the rule in the violations.'),
  'policy.lint': { status: 500, title: 'The certificate failed its own lint', retryable: false, next: 'Tell the operator: the profile yields a certificate that Chancery will not sign.' },
  'policy.origin': refused('Not on behalf of this one', 'Ask on behalf of whom the rules of the profile allow, and say on whose behalf where it wants to know.'),

  // On whose behalf.
  'origin.malformed': bad('Malformed onBehalfOf', 'Say on whose behalf as docs/identities.md has it: the violations tell what cannot be.'),
  'origin.forbidden': { status: 403, title: 'Not on behalf of this one', retryable: false, next: 'Ask an administrator for a grant whose onBehalfOf covers this namespace, user and group, or leave onBehalfOf out.' },
  'origin.required': { status: 403, title: 'Only on behalf of others', retryable: false, next: 'Say on whose behalf, with onBehalfOf, or ask an administrator for a grant of your own.' },

  // Who asks.
  'auth.missing': { status: 401, title: 'No credentials', retryable: false, next: 'Send Authorization: Bearer with a token of yours, or show a client certificate; detail says where only one of them will do.' },
  'auth.invalid': unproven('Credentials not accepted', 'Use a token or certificate that is whole, from an issuer that is trusted here, not expired and not revoked.'),
  'auth.ambiguous': unproven('Two credentials at once', 'Show a client certificate or send a token, not both.'),
  'auth.usage': unproven('The certificate is not for clients', 'Use a certificate with the extended key usage clientAuth.'),
  'auth.early': unproven('The credentials are not valid yet', 'Check the clocks of both ends, and use credentials that are valid now.'),
  'auth.expired': unproven('The credentials have expired', 'Get new ones.'),
  'auth.revoked': unproven('The certificate is revoked', 'Use another certificate, with another key.'),
  'auth.unmapped': unproven('The credentials are nobody’s', 'Ask an administrator to tie them to a principal.'),
  'auth.audience': unproven('The token is not for this service alone', 'Ask its issuer for a token whose only audience is the one of this service.'),
  'auth.lifetime': unproven('The token holds for too long', 'Ask its issuer for a token that ends sooner.'),
  'auth.replayed': unproven('The token was shown before', 'Ask its issuer for a new token for each request.'),
  'auth.proxy': unproven('A client certificate in a header field', 'Send no Client-Cert; it is believed from listed proxies alone (CHANCERY_TRUSTED_PROXIES).'),
  'auth.unavailable': later('The keys of the identity provider cannot be had', 'Send the same request again after Retry-After.'),
  'auth.forbidden': { status: 403, title: 'Not allowed', retryable: false, next: 'Ask an administrator for a grant that covers this call.' },
  'rate.limited': tooMany('Too many requests', 'Wait as Retry-After says, then send the same request.'),

  // Limits. Each says which one it is, its value, and when it frees.
  'limit.requests': tooMany('Too many requests a second', 'Wait as Retry-After says, then send the same request; for more, ask an administrator for a grant with a higher requestsPerSecond.'),
  'limit.concurrent': tooMany('Too many requests at a time', 'Send fewer at a time: wait for an answer, then send the same request; for more, ask an administrator for a grant with a higher concurrent.'),
  'limit.certificates_per_day': tooMany('Too many certificates today', 'Send the same request again once the day (UTC) is over, or ask an administrator for a grant with a higher certificatesPerDay.'),
  'limit.names_per_day': tooMany('Too many names today', 'Send the same request again once the day (UTC) is over, or ask an administrator for a grant with a higher namesPerDay.'),
  'limit.names': refused('More names than the grant allows a day', 'Ask for fewer names in one certificate, or ask an administrator for a grant with a higher namesPerDay.'),
  'limit.certificates_alive': tooMany('Too many certificates that are valid', 'Revoke those that are not needed, or wait until one expires; then send the same request.'),
  'limit.address_requests': tooMany('Too many requests a second from one address', 'Wait as Retry-After says, then send the same request.'),
  'limit.address_concurrent': tooMany('Too many requests at a time from one address', 'Send fewer at a time: wait for an answer, then send the same request.'),
  'limit.room': tooMany('Too much under way at a time', 'Read the answers that you have asked for, or send fewer large bodies at a time; then send the same request.'),
  'limit.failed_authentication': tooMany(
    'Too many failed authentications from one address',
    'Wait as Retry-After says, then send the same request on a new connection; mend the credentials of whoever fails there, and show no more certificates than the chain needs.',
  ),

  // State.
  'profile.not_found': { status: 404, title: 'No such profile', retryable: false, next: 'Check the name; GET /v1/profiles lists the profiles.' },
  'profile.invalid': refused('The profile document is not valid', 'Mend each fault that the violations list, with its place.'),
  'profile.lockout': { status: 409, title: 'This would lock out the last administrator', retryable: false, next: 'Give another principal the admin role first.' },
  'certificate.not_found': { status: 404, title: 'No such certificate', retryable: false, next: 'Check the serial: 32 hexadecimal digits.' },
  'renewal.certificate': { status: 403, title: 'Not the certificate that is shown', retryable: false, next: 'Show the very certificate that the path names, over mutual TLS.' },
  'renewal.foreign': { status: 403, title: 'Not a certificate of this service', retryable: false, next: 'Show the certificate as it was issued here, octet by octet, or ask for a new one by POST /v1/certificates.' },
  'renewal.forbidden': { status: 403, title: 'The profile does not let holders renew', retryable: false, next: 'Ask for a new certificate by POST /v1/certificates, with a grant.' },
  'renewal.issuer': { status: 403, title: 'The issuer of the certificate is not trusted any more', retryable: false, next: 'Ask for a new certificate by POST /v1/certificates, with a grant.' },
  'renewal.ended': { status: 403, title: 'Renewed for too long', retryable: false, next: 'Ask for a new certificate by POST /v1/certificates, with a grant; it can be renewed again.' },
  'renewal.key': refused('Not the key that the profile wants', 'Make a new key, or keep the one that there is, as `renewal.key` of the profile says.'),
  'renewal.names': refused('Not the names of the certificate', 'Leave the names out, or ask for exactly those; other names are a new certificate.'),
  'roll.not_found': { status: 404, title: 'Not on the roll', retryable: false, next: 'Ask for what lies before the size of the newest checkpoint.' },
  'revocation.issuer': { status: 409, title: 'CA certificates are not revoked here', retryable: false, next: 'Halt the issuer, and have the root list its certificate in a ceremony; docs/operations.md tells how.' },
  'revocation.expired': { status: 409, title: 'The certificate has expired', retryable: false, next: 'Nothing needs to be done: nobody accepts it any more.' },
  'revocation.state': { status: 409, title: 'The revocation cannot be changed so', retryable: false, next: 'Leave it, or revoke it as keyCompromise; only a certificate on hold can be released.' },
  'crl.not_found': { status: 404, title: 'No such list', retryable: false, next: 'Use the URL in the certificate.' },
  'crl.invalid': refused('The list does not fit', 'Mend what the violations say; the list must be one that a CA above this issuer has signed.'),
  'crl.unavailable': later('The list has not been published yet', 'Fetch it again after Retry-After.'),
  'revocation.proof': {
    status: 403,
    title: 'No proof by the key of the certificate',
    retryable: false,
    next: 'Sign issuer, serial, reason and the time of now with the key of the certificate, as docs/revocation.md says; without it, an operator reports a key as compromised.',
  },
  'revocation.not_found': { status: 404, title: 'No such order', retryable: false, next: 'Check the digest; GET /v1/revocations lists the orders.' },
  'revocation.plan': { status: 409, title: 'The plan does not hold', retryable: false, next: 'Plan anew without the digest, look at what has changed, and send the new digest.' },
  'revocation.too_many': refused('Too many certificates at once', 'Narrow the search, for example to spans of issue time, and order one after the other.'),
  'approval.not_found': { status: 404, title: 'No such request', retryable: false, next: 'Check the id; GET /v1/requests lists those that you may see.' },
  'approval.required': refused('The profile wants approvals', 'Ask by POST /v1/certificates, which answers with a request that waits for them.'),
  'approval.own': { status: 403, title: 'Nobody decides about the own request', retryable: false, next: 'Ask another approver of the profile.' },
  'approval.not_own': { status: 403, title: "The request is not one's own", retryable: false, next: 'An approver of the profile rejects it: POST /v1/requests/{id}/rejection.' },
  'approval.twice': { status: 409, title: 'You have approved it already', retryable: false, next: 'Nothing needs to be done; another approver must come.' },
  'approval.closed': { status: 409, title: 'The request is not open any more', retryable: false, next: 'Read the request: its state says what became of it.' },
  'approval.expired': { status: 409, title: 'The request has expired', retryable: false, next: 'Ask again, under a new Idempotency-Key.' },
  'approval.rejected': { status: 409, title: 'The request was rejected', retryable: false, next: 'Talk to whoever rejected it; ask again under a new Idempotency-Key.' },
  'approval.withdrawn': { status: 409, title: 'The request was withdrawn', retryable: false, next: 'Ask again, under a new Idempotency-Key.' },
  'approval.failed': { status: 409, title: 'The request has failed', retryable: false, next: 'Read why, and ask again under a new Idempotency-Key.' },
  'approval.plan': { status: 409, title: 'The plan is not the one that was approved', retryable: false, next: 'Look at the plan as it is; what has changed since must be asked for and approved anew.' },
  'approval.too_many': { status: 429, title: 'Too many requests wait for approval', retryable: true, next: 'Wait until some of yours were decided, then send the same request.' },
  'provider.not_found': { status: 404, title: 'No such identity provider', retryable: false, next: 'Check the name; GET /v1/identity-providers lists them.' },
  'provider.invalid': refused('The document of the identity provider is not valid', 'Mend each fault that the violations list, with its place.'),
  'principal.not_found': { status: 404, title: 'No such principal', retryable: false, next: 'Check the name; GET /v1/principals lists the principals, and one that is missing is created first.' },
  'principal.disabled': { status: 409, title: 'The principal is disabled', retryable: false, next: 'Use a principal of another name: a disabled one stays disabled, and keeps its name.' },
  'grant.not_found': { status: 404, title: 'No such grant', retryable: false, next: 'Check the id; GET /v1/grants lists the grants.' },
  'credential.not_found': { status: 404, title: 'No such credential', retryable: false, next: 'Check the id; GET /v1/credentials lists the credentials.' },
  'token.not_found': { status: 404, title: 'No such token', retryable: false, next: 'Check the id; GET /v1/tokens lists the tokens.' },
  'authority.not_found': { status: 404, title: 'No such authority', retryable: false, next: 'Check the name; GET /v1/authorities lists the authorities.' },
  'issuer.not_found': { status: 404, title: 'No such issuer', retryable: false, next: 'Check the name; GET /v1/issuers lists the issuers.' },
  'issuer.token': refused('The token does not have the key so', 'See the detail: name another key, or mend what it says of the token and its settings.'),
  'issuer.key': refused('The certificate is not for the key that was made', 'Have the CSR of this issuer signed, and import the certificate that comes of it.'),
  'issuer.key_place': refused('Another key is there', 'Name the place of the very key that is on record: "chancery key probe URI" shows the SHA-256 of what is at one.'),
  'issuer.chain': refused('The chain does not fit', 'Mend what the violations say, and import the whole chain: the issuer first, its root last.'),
  'issuer.state': { status: 409, title: 'The issuer cannot make this move now', retryable: false, next: 'See the violations: each says what must come first.' },
  'state.exists': { status: 409, title: 'It exists already', retryable: false, next: 'Choose another name, or use what is there.' },
  'state.reserved': { status: 409, title: 'Reserved for the service itself', retryable: false, next: 'Leave it to the service, and use another name for what is yours.' },
  'precondition.failed': { status: 412, title: 'Changed in the meantime', retryable: false, next: 'Fetch it again, redo the change, and send its new sha256, in quotes, in If-Match.' },
  'precondition.required': { status: 428, title: 'Precondition required', retryable: false, next: 'Send If-Match with the ETag of what you change, or If-None-Match: * to create.' },
  'idempotency.key': bad('Malformed Idempotency-Key', 'Use 1 to 128 visible ASCII characters; for a batch, one for each item and none in the header.'),
  'idempotency.reused': { status: 409, title: 'Idempotency-Key used for another request', retryable: false, next: 'Use a new key for a different request.' },
  'request.in_progress': later('The first request under this key is still open', 'Send the same request again after Retry-After; it will not be issued twice.'),
  'issuance.abandoned': later('The issuance was abandoned', 'Send the same request again; it gets a new serial.'),

  // Our side.
  'overload.queue': later('Too many requests are waiting', 'Wait as Retry-After says, then send the same request.'),
  'overload.deadline': later('Answering took too long', 'Send the same request again after Retry-After, with the same Idempotency-Key.'),
  'service.stopping': later('The service is stopping', 'Send the same request again; another instance will answer.'),
  'key.unavailable': later('The signing key is not available', 'Send the same request again after Retry-After.'),
  'key.bad_signature': later('A signature failed its check', 'Send the same request again; tell the operator if it recurs.'),
  'db.unavailable': later('The database is not available', 'Send the same request again, with the same Idempotency-Key.'),
  'roll.inconsistent': later('The records are not those of before', 'Tell the operator; send the same request again when the records are whole.'),
  'roll.unanchored': later('The last checkpoint cannot be kept', 'Send the same request again, with the same Idempotency-Key; tell the operator if it recurs.'),
  'clock.skewed': later('The clock cannot be trusted', 'Send the same request again; tell the operator if it recurs.'),
  'issuer.none_active': later('The authority has no active issuer', 'Send the same request again after an operator has activated an issuer.'),
  'issuer.expired': later('The issuer has expired', 'Tell the operator, who brings another issuer and activates it; then send the same request again.'),
  internal: { status: 500, title: 'Internal error', retryable: false, next: 'Report the requestId to the operator.' },
} as const satisfies Readonly<Record<string, ProblemKind>>

export type ProblemCode = keyof typeof problems

/** The one error of the domain. `detail` is safe to show to whoever asked; `cause` is not. */
export class Problem extends Error {
  readonly code: ProblemCode
  readonly detail: string
  readonly options: ProblemOptions

  constructor(code: ProblemCode, detail: string, options: ProblemOptions = {}) {
    super(`${code}: ${detail}`, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'Problem'
    this.code = code
    this.detail = detail
    this.options = options
  }

  get kind(): ProblemKind {
    return problems[this.code]
  }
}

export const isProblem = (error: unknown, code?: ProblemCode): error is Problem => error instanceof Problem && (code === undefined || error.code === code)
