/** The settings, read once at the start and frozen: the environment and a YAML file, judged together. */
import { join } from 'node:path'

import type { BlockListFiles } from '../keys/block-lists.ts'
import type { Name } from '../x509/names.ts'
import { parsePostgresUrl } from './postgres-url.ts'
import { type Address, type LogLevel, type SettingKey, settings, type Witness } from './settings.ts'
import { gather, type Purpose } from './sources.ts'

export interface Config {
  readonly mode: 'development' | 'production'
  readonly dataDir: string
  readonly listen: Address
  /** Of the API's own certificate. */
  readonly names: readonly Name[]
  /** Whose certificates clients may show to say who they are; whether they may show one to renew it. */
  readonly clients: { readonly authorities: readonly string[]; readonly ca?: string; readonly renewal: boolean }
  readonly publicListen: Address
  /** Without a slash at its end. */
  readonly publicUrl: string
  readonly database: {
    /** Absent: the embedded PostgreSQL. */
    readonly url?: string
    /** In development the same as `url` unless set; in production absent where this process does not migrate. */
    readonly migrationUrl?: string
    /** Where `url` was read, and is read again when its password is no good any more. */
    readonly urlFile?: string
    /** What pg takes where a URL says nothing of TLS. */
    readonly sslMode?: string
    readonly poolSize: number
    readonly preparedStatements: boolean
  }
  readonly keys: {
    /** Only in a signer process, and there absent only in development. */
    readonly passphrase?: string
    readonly hasPassphrase: boolean
    readonly allowSoftware: boolean
    readonly signer: 'process' | 'inline'
    /** Development makes its intermediates' keys in this token; absent: in files. */
    readonly developmentToken?: string
    /** What a signer process is started with: everything but what opens the database. It may hold secrets. */
    readonly environment: Readonly<Record<string, string | undefined>>
    readonly pkcs11: {
      /** The first is for URIs that name none; no other than these is loaded. */
      readonly modules: readonly string[]
      /** Only in a signer process. */
      readonly pin?: string
      readonly sessions: number
    }
    readonly blocked: BlockListFiles
  }
  readonly limits: {
    readonly queue: number
    readonly connections: number
    readonly requestDeadlineMs: number
    readonly signingDeadlineMs: number
    readonly stagingMs: number
    readonly clockToleranceMs: number
    readonly refusalsPerMinute: number
    /** Of addresses, for all instances together. */
    readonly address: {
      readonly requestsPerSecond: number
      readonly concurrent: number
      readonly failedAuthentications: number
    }
  }
  /** Whose word is taken for where a request comes from; addresses and CIDRs. */
  readonly proxies: { readonly networks: readonly string[]; readonly header: 'x-forwarded-for' | 'forwarded' }
  readonly crl: { readonly periodMs: number; readonly validityMs: number }
  readonly ocsp: { readonly validityMs: number; readonly echoNonces: boolean }
  readonly retention: { readonly refusalsDays: number; readonly accessesDays: number }
  readonly log: { readonly level: LogLevel }
  readonly allowEmbedded: boolean
  readonly roll: {
    /** Asked for; what is on record outweighs it. */
    readonly origin?: string
    /** The URI of the key that signs checkpoints. */
    readonly key: string
    /** Where the last checkpoint is kept; absent: nowhere. */
    readonly anchor?: string
    /** Whether production may start where nothing was ever kept there. */
    readonly allowUnseen: boolean
    /** Absent: with each batch. */
    readonly anchorEveryMs?: number
    readonly witnesses: readonly Witness[]
    /** Whether the public listener serves it. */
    readonly isPublic: boolean
  }
}

/**
 * Reads the settings from `env` and from the YAML file that `CHANCERY_CONFIG` names; the environment wins. Rejects
 * with one message that lists all faults. Never shows a secret. Touches nothing but the files that are named. Whoever
 * migrates neither signs nor serves: then production judges only what concerns the database, and passphrases and PINs need not
 * be within reach. Only whoever signs reads those.
 */
export const loadConfig = async (
  env: Readonly<Record<string, string | undefined>>,
  purpose: Purpose = 'serve',
): Promise<Config> => {
  const faults: string[] = []
  const unread = new Set<string>()
  const isSigner = purpose === 'sign'
  const sources = await gather(env, { faults, unread, purpose })
  const values: Record<string, unknown> = {}
  for (const setting of Object.values(settings)) {
    const source = sources.get(setting.path)
    if (source !== undefined && setting.signerOnly) values[`${setting.path}?`] = true
    const { text, from } = source ?? { text: setting.standard, from: setting.env }
    if (text === undefined || (setting.signerOnly && !isSigner)) continue
    try {
      values[setting.path] = setting.read(text)
    } catch (error) {
      const shown = setting.secret ? 'what it holds' : JSON.stringify(text)
      faults.push(`${from}: ${shown} ${(error as Error).message}`)
      unread.add(setting.path)
    }
  }
  const config = shape(values, env)
  const rules = [
    ...(isSigner ? [] : contradictions),
    ...(config.mode === 'production' ? refusals.filter(isOf(purpose)) : []),
  ]
  faults.push(...rules.filter(isJudgeable(unread)).flatMap((rule) => judge(rule, config)))
  // A signer's are told by /readyz of a service that has started: what its files hold is read again and again.
  if (faults.length > 0) throw new Error(isSigner ? sentencesOf(faults).join(' ') : message(faults))
  return deepFreeze(config)
}

const shape = (
  values: Readonly<Record<string, unknown>>,
  env: Readonly<Record<string, string | undefined>>,
): Config => {
  const value = <T>(key: SettingKey): T => values[settings[key].path] as T
  const given = <K extends string>(name: K, key: SettingKey): Partial<Record<K, string>> => {
    const found = value<string | undefined>(key)
    return found === undefined ? {} : ({ [name]: found } as Record<K, string>)
  }
  const mode = value<Config['mode']>('mode')
  const listen = value<Address>('publicListen')
  const shared = mode === 'development' ? given('migrationUrl', 'databaseUrl') : {}
  return {
    mode,
    dataDir: value('dataDir'),
    listen: value('listen'),
    names: value('names'),
    clients: {
      authorities: value<readonly string[] | undefined>('clientAuthorities') ?? [],
      ...given('ca', 'clientCa'),
      renewal: value('clientRenewal'),
    },
    publicListen: listen,
    publicUrl: value('publicUrl') ?? (listen && `http://${formatAddress(listen)}`),
    database: {
      ...given('url', 'databaseUrl'),
      ...shared,
      ...given('migrationUrl', 'migrationUrl'),
      ...(env['CHANCERY_DATABASE_URL_FILE'] !== undefined && { urlFile: env['CHANCERY_DATABASE_URL_FILE'] }),
      ...(env['PGSSLMODE'] !== undefined && { sslMode: env['PGSSLMODE'] }),
      poolSize: value('poolSize'),
      preparedStatements: value('preparedStatements'),
    },
    keys: {
      ...given('passphrase', 'passphrase'),
      hasPassphrase: values[`${settings.passphrase.path}?`] === true,
      allowSoftware: value('allowSoftware'),
      signer: value('signer'),
      ...given('developmentToken', 'developmentToken'),
      environment: Object.fromEntries(Object.entries(env).filter(([name]) => !notForSigners.test(name))),
      pkcs11: {
        modules: value<readonly string[] | undefined>('pkcs11Modules') ?? [],
        ...given('pin', 'pkcs11Pin'),
        sessions: value('pkcs11Sessions'),
      },
      blocked: { ...given('badkeys', 'badkeys'), ...given('spki', 'blockedSpki') },
    },
    limits: {
      queue: value('queue'),
      connections: value('connections'),
      requestDeadlineMs: value('requestDeadlineMs'),
      signingDeadlineMs: value('signingDeadlineMs'),
      stagingMs: value('stagingMs'),
      clockToleranceMs: value('clockToleranceMs'),
      refusalsPerMinute: value('refusalsPerMinute'),
      address: {
        requestsPerSecond: value('addressRequests'),
        concurrent: value('addressConcurrent'),
        failedAuthentications: value('failedAuthentications'),
      },
    },
    proxies: { networks: value<readonly string[] | undefined>('proxies') ?? [], header: value('proxyHeader') },
    crl: { periodMs: value('crlPeriodMs'), validityMs: value('crlValidityMs') },
    ocsp: { validityMs: value('ocspValidityMs'), echoNonces: value('ocspNonces') === 'echo' },
    retention: { refusalsDays: value('refusalsDays'), accessesDays: value('accessesDays') },
    log: { level: value('logLevel') },
    allowEmbedded: value('allowEmbedded'),
    roll: rollOf(value),
  }
}

const rollOf = (value: <T>(key: SettingKey) => T): Config['roll'] => {
  const anchor = value<string | undefined>('rollAnchor') ?? join(value('dataDir') ?? '.', 'roll', 'anchor')
  const origin = value<string | undefined>('rollOrigin')
  return {
    ...(origin !== undefined && { origin }),
    key: value('rollKey'),
    ...(anchor !== 'none' && { anchor }),
    allowUnseen: value('allowUnseenRoll'),
    ...(value('rollAnchorSync') === 'second' && { anchorEveryMs: 1_000 }),
    witnesses: value<readonly Witness[] | undefined>('rollWitnesses') ?? [],
    isPublic: value('rollPublic'),
  }
}

/** What may be wrong although each setting by itself is well-formed. */
interface Rule {
  /** The settings that it looks at; the first is the one to blame. */
  readonly of: readonly [SettingKey, ...SettingKey[]]
  /** What is wrong and the way out; undefined where nothing is. */
  readonly fault: (config: Config) => string | undefined
  /** It looks at what only a signer process reads. */
  readonly signerOnly?: boolean
}

const judge = ({ of: [blamed], fault }: Rule, config: Config): readonly string[] => {
  const reason = fault(config)
  return reason === undefined ? [] : [`${settings[blamed].env}: ${reason}`]
}

/** Faults that follow from faults help nobody: a rule needs all that it looks at. */
const isJudgeable =
  (unread: ReadonlySet<string>) =>
  (rule: Rule): boolean =>
    rule.of.every((key) => !unread.has(settings[key].path))

const isOf =
  (purpose: Purpose) =>
  ({ of: [blamed], signerOnly = false }: Rule): boolean =>
    ({
      serve: !signerOnly,
      migrate: blamed === 'databaseUrl' || blamed === 'migrationUrl',
      sign: signerOnly,
    })[purpose]

/** In any mode. */
const contradictions: readonly Rule[] = [
  {
    of: ['publicUrl', 'publicListen'],
    fault: ({ publicUrl }) =>
      isUnspecified(new URL(publicUrl).hostname)
        ? `${publicUrl} leads nowhere; set the URL under which others reach the public listener`
        : undefined,
  },
  {
    of: ['publicUrl', 'publicListen'],
    fault: ({ publicUrl, publicListen }) =>
      publicListen.port === 0 && publicUrl.endsWith(':0')
        ? 'must be set where the public listener takes any free port'
        : undefined,
  },
  {
    of: ['publicListen', 'listen'],
    fault: ({ publicListen, listen }) =>
      listen.port !== 0 && formatAddress(listen) === formatAddress(publicListen)
        ? 'is the same as CHANCERY_LISTEN; give each its own port'
        : undefined,
  },
  {
    of: ['migrationUrl', 'databaseUrl'],
    fault: ({ database }) =>
      database.migrationUrl !== undefined && database.url === undefined
        ? 'is set without CHANCERY_DATABASE_URL; set both or neither'
        : undefined,
  },
  {
    of: ['crlValidityMs', 'crlPeriodMs'],
    fault: ({ crl }) =>
      crl.validityMs > 2 * crl.periodMs
        ? undefined
        : 'must be more than twice CHANCERY_CRL_PERIOD, or one list that comes late leaves none to use',
  },
]

const refuseUnverified = (key: 'databaseUrl' | 'migrationUrl', member: 'url' | 'migrationUrl'): Rule => ({
  of: [key],
  fault: ({ database }) =>
    isUnverified(database[member], database.sslMode)
      ? 'production does not speak TLS to a server that it does not verify; use sslmode=verify-full'
      : undefined,
})

/**
 * By `uselibpqcompat`, which pg's own warning about other modes recommends, these mean what libpq means by them. pg takes `ssl=`
 * for the mode as well, and then what the environment says.
 */
const isUnverified = (text: string | undefined, fallback: string | undefined): boolean => {
  if (text === undefined) return false
  const { searchParams } = parsePostgresUrl(text)
  const [mode, ssl, isLibpq] = ['sslmode', 'ssl', 'uselibpqcompat'].map((name) => searchParams.getAll(name).at(-1))
  return (
    (mode || ssl || fallback) === 'no-verify' || (isLibpq === 'true' && /^(prefer|require|verify-ca)$/.test(mode ?? ''))
  )
}

/** What production refuses, as far as settings show it. Each names the way out. */
const refusals: readonly Rule[] = [
  {
    of: ['databaseUrl', 'allowEmbedded'],
    fault: ({ database, allowEmbedded }) =>
      database.url === undefined && !allowEmbedded
        ? 'production wants a PostgreSQL of its own; set it, or CHANCERY_ALLOW_EMBEDDED_DATABASE=yes'
        : undefined,
  },
  {
    of: ['migrationUrl', 'databaseUrl'],
    fault: ({ database: { url, migrationUrl } }) =>
      url !== undefined && migrationUrl !== undefined && roleOf(url) === roleOf(migrationUrl)
        ? 'production wants one role that owns the tables and another, in CHANCERY_DATABASE_URL, that serves'
        : undefined,
  },
  refuseUnverified('databaseUrl', 'url'),
  refuseUnverified('migrationUrl', 'migrationUrl'),
  {
    of: ['allowSoftware', 'pkcs11Modules'],
    fault: ({ keys }) =>
      keys.allowSoftware || keys.pkcs11.modules.length > 0
        ? undefined
        : 'production wants keys in a security module (CHANCERY_PKCS11_MODULE); say yes here to sign with keys in files',
  },
  {
    of: ['developmentToken'],
    fault: ({ keys }) =>
      keys.developmentToken === undefined ? undefined : 'production makes no hierarchy of its own; leave it out',
  },
  {
    of: ['signer'],
    fault: ({ keys }) =>
      keys.signer === 'inline'
        ? 'production keeps keys out of the process that reads requests; use process'
        : undefined,
  },
  {
    of: ['passphrase'],
    fault: ({ keys }) =>
      keys.allowSoftware && !keys.hasPassphrase
        ? 'production does not make up the passphrase of its keys; set CHANCERY_KEY_PASSPHRASE_FILE'
        : undefined,
  },
  {
    of: ['rollKey', 'passphrase'],
    fault: ({ keys, roll }) =>
      roll.key.startsWith('file:') && !keys.hasPassphrase
        ? 'production encrypts the key of the roll; set CHANCERY_KEY_PASSPHRASE_FILE, or here the URI of a key in a token'
        : undefined,
  },
  {
    of: ['passphrase'],
    signerOnly: true,
    fault: ({ keys: { passphrase } }) =>
      passphrase !== undefined && (passphrase.length < 12 || wellKnown.has(passphrase.toLowerCase()))
        ? 'production wants 12 characters or more that nobody has seen in documentation'
        : undefined,
  },
  {
    of: ['publicUrl', 'publicListen'],
    fault: ({ publicUrl }) =>
      isLoopback(new URL(publicUrl).hostname)
        ? `${publicUrl} is this machine only, and would be copied into every certificate; set the URL under which others reach the public listener`
        : undefined,
  },
]

const message = (faults: readonly string[]): string =>
  [
    faults.length === 1 ? 'One setting stops the start:' : `${faults.length} settings stop the start:`,
    ...sentencesOf(faults).map((sentence) => `  - ${sentence}`),
    'docs/configuration.md lists every setting.',
  ].join('\n')

const sentencesOf = (faults: readonly string[]): readonly string[] =>
  [...new Set(faults)].sort().map((fault) => (/[.?!]$/.test(fault) ? fault : `${fault}.`))

export const formatAddress = ({ host, port }: Address): string =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`

/** The role that a PostgreSQL URL connects as. Where it names none, as with peer authentication, it is the one that pg takes. */
export const roleOf = (text: string): string => {
  const url = parsePostgresUrl(text)
  const named = url.searchParams.get('user') ?? decodeURIComponent(url.username)
  return named || process.env['PGUSER'] || process.env['USER'] || ''
}

/** Where a PostgreSQL URL leads, for people; without its password. */
export interface DatabasePlace {
  /** `host:port`, or the path of a Unix socket. */
  readonly address: string
  readonly database: string
  readonly role: string
}

export const placeOf = (text: string): DatabasePlace => {
  const { hostname, port, pathname, searchParams } = parsePostgresUrl(text)
  const host = searchParams.get('host') ?? decodeURIComponent(hostname)
  const at = searchParams.get('port') ?? (port || '5432')
  const role = roleOf(text)
  return {
    address: host.startsWith('/') ? `${host}/.s.PGSQL.${at}` : `${host}:${at}`,
    // What of it is reserved in a URL stays an escape, to pg.
    database: decodeURI(pathname.slice(1)) || role,
    role,
  }
}

/** Whether a host, as a URL writes it, stands for every address of the machine: it can be listened on, and not called. */
export const isUnspecified = (host: string): boolean => host === '0.0.0.0' || host === '[::]'

/** Whether a host, as a URL writes it, is this machine only. */
export const isLoopback = (host: string): boolean =>
  /^127\./.test(host) ||
  host === '[::1]' ||
  host.startsWith('[::ffff:7f') ||
  /(^|\.)localhost\.?$/.test(host) ||
  isUnspecified(host)

const deepFreeze = <T>(value: T): T => {
  if (typeof value === 'object' && value !== null) for (const member of Object.values(value)) deepFreeze(member)
  return Object.freeze(value)
}

const notForSigners = /^(CHANCERY_(DATABASE_URL|MIGRATION_URL|TOKEN)(_FILE)?|PG[A-Z]+|NODE_OPTIONS|NOTIFY_SOCKET)$/
const wellKnown: ReadonlySet<string> = new Set([
  'development',
  'changeme',
  'change-me-please',
  'passwordpassword',
  'chancerychancery',
])
