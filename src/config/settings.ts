import { isProblem } from '../errors.ts'
import { sha256 } from '../lib/sha256.ts'
import { isRollFault } from '../tlog/fault.ts'
import { parseVerifierKey, type VerifierKey } from '../tlog/note.ts'
import { parseIp } from '../x509/addresses.ts'
import { assertNames, isAddressLiteral, type Name, parseName } from '../x509/names.ts'
import { faultOfPostgresUrl } from './postgres-url.ts'

/**
 * Every setting, in one table: its name in the environment, its place in the YAML file, how it is read, what it is
 * when nobody says, and what it guards. `docs/configuration.md` is made from this table and compared in the tests.
 */
export interface Setting {
  /** In the environment. */
  readonly env: string
  /** In the YAML file. */
  readonly path: string
  /** Text for a value, or a thrown Error that says what was expected ("is …"). */
  readonly read: (text: string) => unknown
  /** What the value may look like, for people. */
  readonly form: string
  /** The default, as one would write it; absent where there is none. */
  readonly standard?: string
  /** Never echoed; may come by `<env>_FILE`. */
  readonly secret?: true
  /** Read by the signer process alone: the others only know whether it is set. */
  readonly signerOnly?: true
  readonly about: string
}

/** A listener's place. */
export interface Address {
  readonly host: string
  readonly port: number
}

/** Who cosigns checkpoints, and where. */
export interface Witness {
  /** As a verifier is given it. */
  readonly key: string
  /** Without a slash at its end. */
  readonly url: string
}

const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const
export type LogLevel = (typeof logLevels)[number]

/** "yes" and "no"; YAML's true and false say the same. */
const yesOrNo = {
  form: '`yes` or `no`',
  read: (value: string): boolean => {
    const found = ({ yes: true, true: true, no: false, false: false } as Readonly<Record<string, boolean>>)[value]
    if (found === undefined) throw new Error('is neither yes nor no')
    return found
  },
}

const milliseconds: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

const table = {
  mode: {
    env: 'CHANCERY_MODE',
    path: 'mode',
    ...oneOf('development', 'production'),
    standard: 'development',
    about: 'Production refuses every convenience of development, by name: see below.',
  },
  dataDir: {
    env: 'CHANCERY_DATA',
    path: 'data',
    read: text,
    form: 'path',
    standard: 'data',
    about:
      'Folder for keys, tokens and the embedded database; made 0700, its files 0600. Relative to the working directory.',
  },
  listen: {
    env: 'CHANCERY_LISTEN',
    path: 'listen',
    read: address,
    form: '`host:port`',
    standard: '127.0.0.1:8443',
    about: 'The API: HTTPS, with a certificate that Chancery issues to itself and renews.',
  },
  names: {
    env: 'CHANCERY_NAMES',
    path: 'names',
    read: hostNames,
    form: 'names and addresses, with commas',
    standard: 'localhost,127.0.0.1,::1',
    about: 'Under which clients reach the API: what its HTTPS certificate says, and nothing else.',
  },
  clientAuthorities: {
    env: 'CHANCERY_CLIENT_AUTHORITIES',
    path: 'clients.authorities',
    read: labels,
    form: 'names of authorities, with commas',
    about:
      'Whose certificates clients of the API may show instead of a token: those of the issuers of these authorities, but for retired ones. Nobody’s when unset. Whoever may get a certificate with clientAuth there can show it; which principal it is then is said by credentials (docs/identities.md).',
  },
  clientCa: {
    env: 'CHANCERY_CLIENT_CA',
    path: 'clients.ca',
    read: text,
    form: 'path',
    about:
      'A PEM file with further CAs whose certificates clients may show. Each is trusted by itself: put in those that sign the certificates of clients, not only a root above them. It is read again when it changes.',
  },
  clientRenewal: {
    env: 'CHANCERY_CLIENT_RENEWAL',
    path: 'clients.renewal',
    ...yesOrNo,
    standard: 'yes',
    about:
      'Whether the API asks for a certificate at the beginning of each connection so that it can be renewed, where its profile allows that; it says nothing of who somebody is. Browsers that have certificates may offer them at `/docs`: `no` ends that, and renewing by holding, unless the API asks for certificates of clients anyway.',
  },
  publicListen: {
    env: 'CHANCERY_PUBLIC_LISTEN',
    path: 'publicListen',
    read: address,
    form: '`host:port`',
    standard: '127.0.0.1:8080',
    about: 'CRLs, OCSP and issuer certificates: plain HTTP, as RFC 5280 expects.',
  },
  publicUrl: {
    env: 'CHANCERY_PUBLIC_URL',
    path: 'publicUrl',
    read: httpUrl,
    form: '`http://…`',
    about:
      'What the CRL, OCSP and issuer URLs in certificates begin with; `http://<public listen>` when unset. Copied into an issuer when it is created, and never changed there.',
  },
  databaseUrl: {
    env: 'CHANCERY_DATABASE_URL',
    path: 'database.url',
    read: postgresUrl,
    form: '`postgresql://…`',
    secret: true,
    about:
      'PostgreSQL 15 or newer, as the role that serves; the embedded one when unset. Over a network add `sslmode=verify-full`, and `sslrootcert=` for an own authority. One host: where a standby may take its place, the address that always leads to the server that takes writes; `target_session_attrs` and `channel_binding` are not looked at. `options=-c …` in it come after those that Chancery sends for its sessions (`DateStyle`, `TimeZone`, `search_path`, isolation, how plans are made), and hold where both say something; `synchronous_commit=off` holds nowhere.',
  },
  migrationUrl: {
    env: 'CHANCERY_MIGRATION_URL',
    path: 'database.migrationUrl',
    read: postgresUrl,
    form: '`postgresql://…`',
    secret: true,
    about:
      'The same database as the role that owns the tables: it migrates, and grants to the role that serves. In development `CHANCERY_DATABASE_URL` when unset; in production another role, needed by `chancery migrate` only.',
  },
  poolSize: {
    env: 'CHANCERY_DATABASE_POOL_SIZE',
    path: 'database.poolSize',
    ...whole(2, 1_000),
    standard: '14',
    about:
      'Connections to the database at most, of each process; of eight and more, a quarter, up to four, for issuing. Requests share them in batches: more are seldom faster.',
  },
  preparedStatements: {
    env: 'CHANCERY_DATABASE_PREPARED_STATEMENTS',
    path: 'database.preparedStatements',
    ...yesOrNo,
    standard: 'yes',
    about:
      '`no` behind a transaction pooler: then neither named statements nor start-up settings are sent, and the timeouts belong on the role (`statement_timeout`, `lock_timeout`, `idle_in_transaction_session_timeout`).',
  },
  allowEmbedded: {
    env: 'CHANCERY_ALLOW_EMBEDDED_DATABASE',
    path: 'allowEmbeddedDatabase',
    ...yesOrNo,
    standard: 'no',
    about:
      'Whether production may keep its records in the embedded PostgreSQL, whose backups and disks are then yours to see to.',
  },
  passphrase: {
    env: 'CHANCERY_KEY_PASSPHRASE',
    path: 'keys.passphrase',
    read: text,
    form: 'text',
    secret: true,
    signerOnly: true,
    about:
      'Encrypts software keys at rest. Development makes one up and keeps it beside the keys; production asks for 12 characters or more.',
  },
  allowSoftware: {
    env: 'CHANCERY_ALLOW_SOFTWARE_KEYS',
    path: 'keys.allowSoftware',
    ...yesOrNo,
    standard: 'no',
    about:
      'Whether production may sign with keys in files: whoever reads the memory or the disk of this machine has them.',
  },
  pkcs11Modules: {
    env: 'CHANCERY_PKCS11_MODULE',
    path: 'keys.pkcs11Module',
    read: absolutePaths,
    form: 'paths, with commas',
    about:
      'The libraries of security modules: no other is ever loaded, whatever a key’s URI says. The first is for URIs without `module-path`.',
  },
  pkcs11Pin: {
    env: 'CHANCERY_PKCS11_PIN',
    path: 'keys.pkcs11Pin',
    read: text,
    form: 'text',
    secret: true,
    signerOnly: true,
    about:
      'The PIN of the token, for keys whose URI has no `pin-source`. By a file: then only the signer process has it.',
  },
  pkcs11Sessions: {
    env: 'CHANCERY_PKCS11_SESSIONS',
    path: 'keys.pkcs11Sessions',
    ...whole(1, 60),
    standard: '8',
    about:
      'Sessions of each instance with one token at most, and so signatures that it makes there at the same time. It keeps those that it has opened: where a token allows few in all, those of all instances have to fit, and two for a command beside them.',
  },
  developmentToken: {
    env: 'CHANCERY_DEVELOPMENT_TOKEN',
    path: 'keys.developmentToken',
    read: tokenUri,
    form: '`pkcs11:token=…`',
    about:
      'Where development makes the keys of its intermediates, instead of in files: to try a security module, or SoftHSM, with the whole service.',
  },
  signer: {
    env: 'CHANCERY_SIGNER',
    path: 'keys.signer',
    ...oneOf('process', 'inline'),
    standard: 'process',
    about: '`inline` signs in the process that also reads requests. For measuring; production refuses it.',
  },
  badkeys: {
    env: 'CHANCERY_BADKEYS_LIST',
    path: 'keys.badkeysList',
    read: text,
    form: 'path',
    about:
      'A `blocklist.dat` of badkeys.info: known compromised keys, those of Debian’s broken generator among them. Requests for such a key are refused; without the list, which does not come with Chancery, they are not known.',
  },
  blockedSpki: {
    env: 'CHANCERY_BLOCKED_KEYS',
    path: 'keys.blocked',
    read: text,
    form: 'path',
    about:
      'A list of your own: SHA-256 of SubjectPublicKeyInfos in hexadecimal, one a line. Requests for such a key are refused.',
  },
  rollOrigin: {
    env: 'CHANCERY_ROLL_ORIGIN',
    path: 'roll.origin',
    read: rollOrigin,
    form: 'a host and a path, as `ca.example.com/roll`',
    about:
      'What the roll is called in its checkpoints; the first of `CHANCERY_NAMES` and `/roll` when unset. On record from the first start on, and never changed by a setting.',
  },
  rollKey: {
    env: 'CHANCERY_ROLL_KEY',
    path: 'roll.key',
    read: text,
    form: '`file:…` or `pkcs11:…`',
    standard: 'file:roll/key.pem',
    about:
      'The key that signs checkpoints, an Ed25519 one; made when it is missing and none is on record, and by `chancery roll succeed` when it is missing. Every replica needs the same.',
  },
  rollAnchor: {
    env: 'CHANCERY_ROLL_ANCHOR',
    path: 'roll.anchor',
    read: text,
    form: 'path, or `none`',
    about:
      'The file that keeps the last checkpoint outside of the database, `roll/anchor` in the data folder when unset: it tells a database that was set back from the right one. One for each replica, on a disk that outlives it. `none` does without, and then only witnesses would notice.',
  },
  rollAnchorSync: {
    env: 'CHANCERY_ROLL_ANCHOR_SYNC',
    path: 'roll.anchorSync',
    ...oneOf('batch', 'second'),
    standard: 'batch',
    about:
      'When that file is synced to the disk: before each answer, or once a second. With `second`, a machine that dies may forget the answers of its last second.',
  },
  allowUnseenRoll: {
    env: 'CHANCERY_ALLOW_UNSEEN_ROLL',
    path: 'roll.allowUnseen',
    ...yesOrNo,
    standard: 'no',
    about:
      'Whether production may start over a roll of which no checkpoint was kept here: on a new replica, or after its disk was lost. An older database would not be noticed then, so say it for one start, when the database is known to be the right one.',
  },
  rollWitnesses: {
    env: 'CHANCERY_ROLL_WITNESSES',
    path: 'roll.witnesses',
    read: witnesses,
    form: 'verifier keys, each with a space and a URL, with commas',
    about:
      'Who is asked to cosign checkpoints (c2sp.org/tlog-witness), as `w.example+1a2b3c4d+BA… https://w.example`: [witness.md](witness.md).',
  },
  rollPublic: {
    env: 'CHANCERY_ROLL_PUBLIC',
    path: 'roll.public',
    ...yesOrNo,
    standard: 'no',
    about: 'Whether the public listener serves the roll to everyone: all certificates, names and principals in it.',
  },
  queue: {
    env: 'CHANCERY_QUEUE',
    path: 'limits.queue',
    ...whole(1, 100_000),
    standard: '512',
    about: 'Requests under way; further ones get 503 and Retry-After before latency grows.',
  },
  connections: {
    env: 'CHANCERY_CONNECTIONS',
    path: 'limits.connections',
    ...whole(16, 1_000_000),
    standard: '4096',
    about:
      'Sockets open at once on each listener; further ones are closed unanswered, which `chancery_sockets_refused_total` counts. One address (of IPv6: one /64) has three quarters of them at most, unless it is a trusted proxy of the API: raise it where all come from behind one NAT, or a proxy stands before the public listener. Where the process may not open twice as many files, and some more (`ulimit -n`, `LimitNOFILE`), it is as many as it may, and `sockets.few` in the log says so.',
  },
  addressRequests: {
    env: 'CHANCERY_LIMIT_ADDRESS_REQUESTS',
    path: 'limits.addressRequests',
    ...whole(1, 1_000_000),
    standard: '20000',
    about:
      'Requests a second to the API from one address (of IPv6: from one /64), before anybody is known; further ones get 429. Of all instances together: each takes an equal share. A flood should be stopped before it; think of all who come from behind one NAT.',
  },
  addressConcurrent: {
    env: 'CHANCERY_LIMIT_ADDRESS_CONCURRENT',
    path: 'limits.addressConcurrent',
    ...whole(1, 100_000),
    standard: '2048',
    about: 'Requests to the API under way at a time from one address, of all instances together.',
  },
  failedAuthentications: {
    env: 'CHANCERY_LIMIT_FAILED_AUTHENTICATIONS',
    path: 'limits.failedAuthentications',
    ...whole(1, 1_000_000),
    standard: '20',
    about:
      'Failed authentications from one address at once; one more is let in each second. Beyond it nothing that was not good there before is looked at, and gets 429. Of all instances together.',
  },
  proxies: {
    env: 'CHANCERY_TRUSTED_PROXIES',
    path: 'proxies.trusted',
    read: networks,
    form: 'addresses and CIDRs, with commas',
    about:
      'Proxies in front of the API whose word is taken for where a request comes from, and for the client certificate that they have verified (`Client-Cert`, RFC 9440). They must take these fields away from what their clients send. Nobody when unset: put in nothing that others can come from.',
  },
  proxyHeader: {
    env: 'CHANCERY_PROXY_HEADER',
    path: 'proxies.header',
    ...oneOf('x-forwarded-for', 'forwarded'),
    standard: 'x-forwarded-for',
    about: 'The one field in which they write the address of whoever asked; the other one is never looked at.',
  },
  requestDeadlineMs: {
    env: 'CHANCERY_REQUEST_DEADLINE',
    path: 'limits.requestDeadline',
    ...duration('ms', 1_000, 60_000),
    standard: '5s',
    about:
      'How long one request may take. With the signing deadline it also says when the reconciler gives up on an intent.',
  },
  signingDeadlineMs: {
    env: 'CHANCERY_SIGNING_DEADLINE',
    path: 'limits.signingDeadline',
    ...duration('ms', 100, 60_000),
    standard: '1500ms',
    about: 'How long one signature may take.',
  },
  stagingMs: {
    env: 'CHANCERY_STAGING_TIME',
    path: 'limits.stagingTime',
    ...duration('ms', 0, 2_592_000_000),
    standard: '24h',
    about:
      'How long a new issuer is published before it may be activated beside or in place of another one: the time that those who trust the bundle of its authority need to fetch it.',
  },
  crlPeriodMs: {
    env: 'CHANCERY_CRL_PERIOD',
    path: 'status.crlPeriod',
    ...duration('ms', 1_000, 2_592_000_000),
    standard: '12h',
    about:
      'How often a list of what is revoked is published that nothing has changed. One in whose shard something is revoked is published within a minute.',
  },
  crlValidityMs: {
    env: 'CHANCERY_CRL_VALIDITY',
    path: 'status.crlValidity',
    ...duration('ms', 3_000, 7_776_000_000),
    form: '`3s` to `90d`, more than twice the period',
    standard: '72h',
    about:
      'How long a list may be used: nextUpdate. It bounds how long an outage of Chancery can last before those who insist on lists refuse every certificate, and nothing else.',
  },
  ocspValidityMs: {
    env: 'CHANCERY_OCSP_VALIDITY',
    path: 'status.ocspValidity',
    ...duration('ms', 240_000, 604_800_000),
    standard: '4h',
    about:
      'How long an OCSP answer may be used: nextUpdate. It is told for the first half of it, so that those who staple it have the other half. Servers that staple may go on with an older answer until its end. None is for longer than the certificate of the key that signs it, which is made anew halfway through its week.',
  },
  ocspNonces: {
    env: 'CHANCERY_OCSP_NONCES',
    path: 'status.ocspNonces',
    ...oneOf('echo', 'ignore'),
    standard: 'echo',
    about:
      'Whether OCSP answers repeat the nonce of the request (RFC 9654), which takes a signature each time, or leave it out, so that answers are made once (RFC 5019).',
  },
  clockToleranceMs: {
    env: 'CHANCERY_CLOCK_TOLERANCE',
    path: 'limits.clockTolerance',
    ...duration('ms', 100, 300_000),
    standard: '5s',
    about:
      'How far our clock may be from the database’s, or the database’s behind the last event, before issuing stops.',
  },
  refusalsPerMinute: {
    env: 'CHANCERY_REFUSALS_PER_MINUTE',
    path: 'limits.refusalsPerMinute',
    ...whole(0, 100_000),
    standard: '60',
    about:
      'Refusals of one principal that are recorded one by one in a minute; beyond it they are counted, and the count is recorded.',
  },
  refusalsDays: {
    env: 'CHANCERY_RETENTION_REFUSALS',
    path: 'retention.refusals',
    ...duration('d', 1, 3_650),
    standard: '90d',
    about: 'How long refusals are kept. Certificates, outcomes and the roll are kept for ever.',
  },
  accessesDays: {
    env: 'CHANCERY_RETENTION_ACCESSES',
    path: 'retention.accesses',
    ...duration('d', 1, 3_650),
    standard: '365d',
    about: 'How long it is kept who has searched and exported records.',
  },
  logLevel: {
    env: 'CHANCERY_LOG_LEVEL',
    path: 'log.level',
    ...oneOf(...logLevels),
    standard: 'info',
    about: 'The least severe lines that are written. Secrets, requests and keys are in none of them.',
  },
} as const satisfies Readonly<Record<string, Setting>>

export type SettingKey = keyof typeof table
/** Keys are for the code; everything else is for people. */
export const settings: Readonly<Record<SettingKey, Setting>> = table

/** Names of ours that are not settings of the service: where it reads them from, and what the commands use. */
export const otherNames: ReadonlySet<string> = new Set([
  'CHANCERY_CONFIG',
  'CHANCERY_URL',
  'CHANCERY_TOKEN',
  'CHANCERY_TOKEN_FILE',
  'CHANCERY_CACERT',
  'CHANCERY_CONTEXT',
])

function text(value: string): string {
  return value
}

/** How a value is read, and what it may look like. */
type Kind<T> = Pick<Setting, 'form'> & { readonly read: (text: string) => T }

function oneOf<T extends string>(...choices: readonly T[]): Kind<T> {
  return {
    form: choices
      .map((choice) => `\`${choice}\``)
      .join(', ')
      .replace(/, (?=[^,]*$)/, ' or '),
    read: (value) => {
      const found = choices.find((choice) => choice === value)
      if (found === undefined) throw new Error(`is not one of ${choices.join(', ')}`)
      return found
    },
  }
}

function whole(least: number, most: number): Kind<number> {
  return {
    form: `${least} to ${most}`,
    read: (value) => {
      const number = /^\d{1,9}$/.test(value) ? Number(value) : Number.NaN
      if (!(number >= least && number <= most)) throw new Error(`is not a whole number from ${least} to ${most}`)
      return number
    },
  }
}

function duration(unit: 'ms' | 'd', least: number, most: number): Kind<number> {
  const [from, to] = [durationText(least, unit), durationText(most, unit)]
  return {
    form: `\`${from}\` to \`${to}\``,
    read: (value) => {
      const [, count, of] = /^(\d{1,9})(ms|s|m|h|d)$/.exec(value) ?? []
      const amount = (Number(count) * (milliseconds[of ?? ''] ?? Number.NaN)) / (milliseconds[unit] ?? Number.NaN)
      if (!(amount >= least && amount <= most && Number.isInteger(amount)))
        throw new Error(`is not a duration from ${from} to ${to}, like 500ms, 10s, 5m, 2h or 90d`)
      return amount
    },
  }
}

/** In the largest unit in which it is whole. */
function durationText(count: number, unit: 'ms' | 'd'): string {
  const amount = count * (milliseconds[unit] ?? Number.NaN)
  const [name, one] = Object.entries(milliseconds).findLast(([, each]) => amount % each === 0) ?? ['ms', 1]
  return amount === 0 ? '0s' : `${amount / one}${name}`
}

function address(value: string): Address {
  const [, six, other, digits] = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]]+)):(\d{1,5})$/.exec(value) ?? []
  const host = six ?? other
  const port = Number(digits)
  if (host === undefined || !(port <= 65_535)) throw new Error('is not host:port, like 127.0.0.1:8443 or [::1]:8443')
  return { host, port }
}

/** Names and addresses, each in its normal form: the profile of our own certificate is made of them. */
function hostNames(value: string): readonly Name[] {
  try {
    const names = value
      .split(',')
      .map((name) => name.trim())
      .map((name) => parseName(isAddressLiteral(name) ? 'ip' : 'dns', name))
    assertNames(names)
    return names
  } catch (error) {
    throw new Error(`is not a list of host names and addresses: ${isProblem(error) ? error.detail : 'it is malformed'}`)
  }
}

/** Each is a key for cosignatures, and where its witness is. */
function witnesses(value: string): readonly Witness[] {
  return value.split(',').map((part) => witness(part.trim()))
}

function witness(text: string): Witness {
  const [key = '', url = '', ...rest] = text.split(/ +/)
  if (!/^https?:$/.test(URL.canParse(url) ? new URL(url).protocol : '') || rest.length > 0)
    throw new Error('is not a list of verifier keys, each with a space and the URL of its witness')
  const parsed = verifierKey(key)
  if (parsed.type !== 'cosignature') throw new Error(`has a key, ${parsed.name}, that is not for cosignatures`)
  return { key, url: url.replace(/\/+$/, '') }
}

function verifierKey(text: string): VerifierKey {
  try {
    return parseVerifierKey(text, sha256)
  } catch (error) {
    throw isRollFault(error) ? new Error(`has a key that is none: ${error.detail}`) : error
  }
}

/** Of authorities. Whether there are such is not known yet. */
function labels(value: string): readonly string[] {
  const names = value.split(',').map((name) => name.trim())
  if (!names.every((name) => /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(name)))
    throw new Error('is not a list of names of lower-case letters, digits and hyphens')
  return names
}

/** Addresses, and CIDRs whose address is the first of theirs: else it is not clear what was meant. */
function networks(value: string): readonly string[] {
  return value.split(',').map((part) => {
    const text = part.trim()
    const [address = '', bits, ...rest] = text.split('/')
    const octets = parseIp(address)
    const width = octets ? octets.length * 8 : 0
    const fits = bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) >= 1 && Number(bits) <= width)
    if (!octets || !fits || rest.length > 0) throw new Error('is not a list of addresses and CIDRs')
    const host = bits === undefined ? 0 : width - Number(bits)
    const number = BigInt(`0x${octets.toString('hex')}`)
    if (number % 2n ** BigInt(host) !== 0n)
      throw new Error(`has a CIDR, ${text}, whose address has bits behind its prefix`)
    return text
  })
}

function absolutePaths(value: string): readonly string[] {
  const paths = value.split(',').map((path) => path.trim())
  if (!paths.every((path) => path.startsWith('/'))) throw new Error('is not a list of absolute paths')
  return paths
}

/** The name of a signed note's key too: no spaces, no plus (c2sp.org/tlog-checkpoint, c2sp.org/signed-note). */
function rollOrigin(value: string): string {
  if (!/^[a-z0-9.:[\]-]+(\/[A-Za-z0-9._~-]+)*$/.test(value) || value.length > 200)
    throw new Error('is not a host and a path without a scheme, like ca.example.com/roll')
  return value
}

function tokenUri(value: string): string {
  const named = /^pkcs11:[^?]*\b(token|serial)=/.test(value) && !/\b(object|id)=/.test(value)
  if (!named) throw new Error('is not the URI of a token, like pkcs11:token=development')
  return value
}

function httpUrl(value: string): string {
  const url = URL.canParse(value) ? new URL(value) : undefined
  if (url === undefined || url.protocol !== 'http:' || url.search !== '' || url.hash !== '' || url.username !== '') {
    throw new Error(
      'is not a plain http:// URL; relying parties fetch CRLs without TLS, which would need a CRL itself (RFC 5280 section 8)',
    )
  }
  return value.replace(/\/+$/, '')
}

function postgresUrl(value: string): string {
  const fault = faultOfPostgresUrl(value)
  if (fault !== undefined) throw new Error(fault)
  return value
}
