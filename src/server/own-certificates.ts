/**
 * The certificates that Chancery issues to itself, through the same cycle as everyone else's and under profiles of its
 * own: of its HTTPS, and of the keys that answer for its issuers.
 */
import { hash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import type { Caller } from '../ca/access/access.ts'
import type { Issuance } from '../ca/issuance/issuance.ts'
import { renewalInfoOf } from '../ca/issuance/renewal-info.ts'
import { newSerial } from '../ca/issuance/serial.ts'
import type { Issuer } from '../ca/issuers/issuer.ts'
import { own } from '../ca/own.ts'
import type { Config } from '../config/config.ts'
import { readRenewalFacts } from '../db/holders.ts'
import { loadIssuers } from '../db/issuers.ts'
import { isProblem, type Problem } from '../errors.ts'
import { canonicalJson } from '../lib/canonical-json.ts'
import { aceLabelsOf } from '../policy/names.ts'
import { hasEnded } from '../policy/validity.ts'
import { hasUnderscore, isWildcard } from '../x509/names.ts'
import { issueOwnCertificate, makeStandIn, type ServerCertificate } from './jobs/own-certificate.ts'
import type { Stores } from './stores.ts'

/** The service itself, asking under one profile. */
const ownCaller = async ({ access, clock }: Stores, profile: string): Promise<Caller> => {
  const { principal } = own
  await access.createPrincipal(principal, principal).catch(() => access.readPrincipal(principal))
  const grant = {
    id: 'own',
    principal,
    role: 'requester',
    profiles: [profile],
    names: null,
    revoke: false,
    createdAt: clock(),
    createdBy: principal,
  } as const
  return { principal, proof: { kind: 'own' }, grants: [grant] }
}

/**
 * The HTTPS certificate now and its renewal. A failed renewal leaves the old one, and is tried again each minute; once that does
 * not hold, a stand-in takes its place, by which the command line on this machine can still bring an issuer.
 */
export const openOwnCertificate = async (stores: Stores, issuance: Issuance, probe: () => Promise<unknown>) => {
  const { db, policies, config, clock, dbClock, random, metrics, log } = stores
  const profile = ownProfileName(config)
  const caller = await ownCaller(stores, profile)
  const { names } = config
  const rootOf = async (name: string): Promise<Buffer> => {
    const root = (await loadIssuers(db)).find((issuer) => issuer.name === name)?.chain.at(-1)
    if (!root) throw new Error(`the issuer ${name} has no root`)
    return root
  }
  let again = Number.NEGATIVE_INFINITY
  const issue = async (): Promise<ServerCertificate> => {
    // Whatever has been made of our profile meanwhile: it is ours.
    await policies.put(ownProfile(config, own.authority), own.principal, {})
    return issueOwnCertificate({ issuance, caller, profile, names, rootOf }).catch((error: unknown) => {
      // It stays so until people bring another issuer, or other names: each try is a refusal on record.
      if (isProblem(error) && !error.kind.retryable) again = performance.now() + renewAgainMs
      throw error
    })
  }
  /** Callers who trust our root only should not meet a stand-in because a token takes a moment to open. */
  const issueAtStart = async (): Promise<ServerCertificate> => {
    for (const end = performance.now() + keyPatienceMs; ; ) {
      try {
        return await issue()
      } catch (error) {
        if (!isProblem(error, 'key.unavailable') || performance.now() > end) throw error
      }
      await sleep(200)
      await probe()
    }
  }
  /** Whoever can't have a certificate is served under one that nobody has signed, and told so. */
  const standInFor = (error: unknown): ServerCertificate => {
    if (!isProblem(error)) throw error
    tellMissing(error)
    return makeStandIn(names, newSerial(random), clock())
  }
  let told = ''
  /**
   * Again where the reason is another: an issuer that has come since may refuse these names. Not where only its words are, which may
   * be others at each look: how far apart the clocks are, say.
   */
  const tellMissing = ({ code, detail, options: { violations = [] } }: Problem): void => {
    const reason = canonicalJson({ code, violations })
    if (reason === told) return
    told = reason
    log.warn(
      { event: 'own-certificate.missing', code, detail, violations },
      'serving under a certificate that nobody has signed, until an issuer can sign one',
    )
  }
  let certificate = await issueAtStart().catch(standInFor)
  metrics.watchOwnCertificate(() => (certificate.standIn ? undefined : certificate.notAfter))
  /**
   * It has expired, or was made while both clocks were ahead. By both of them: one that is wrong takes nobody's certificate away.
   */
  const isOutOfTime = (): boolean => [clock(), dbClock.now()].every((now) => !holdsAt(certificate, now))
  /**
   * As we tell everybody else who asks when to renew: it is revoked, say, or its issuer signs no more. Lists of CAs above are not
   * looked at: where they revoke an issuer that is active, the next certificate comes from the same one. Without records it goes on.
   */
  const isCalledBack = async ({ serial }: ServerCertificate): Promise<boolean> => {
    const facts = serial === undefined ? undefined : await readRenewalFacts(db, serial).catch(() => undefined)
    if (!facts) return false
    const { reason, window } = renewalInfoOf(facts, false)
    return reason !== 'age' && window.end <= clock()
  }
  return {
    current: () => certificate,
    renew: async (install: (pem: ServerCertificate) => unknown): Promise<void> => {
      // Clocks may have gone on by days since the last one, as those of a machine that was asleep: then that has ended as well.
      if (performance.now() < again && !isOutOfTime()) return
      if (clock() < certificate.renewAt && !isOutOfTime() && !(await isCalledBack(certificate))) return
      again = performance.now() + (certificate.standIn ? 0 : renewAgainMs)
      const renewed = await issue().catch((error: unknown) => {
        if (isOutOfTime()) return standInFor(error)
        if (!certificate.standIn || !isProblem(error)) throw error
        tellMissing(error)
        return undefined
      })
      if (!renewed) return
      if (renewed.standIn && !certificate.standIn) again = performance.now()
      certificate = renewed
      await install(certificate)
      if (certificate.standIn) return
      told = ''
      log.info({ event: 'own-certificate.renewed', renewAt: certificate.renewAt }, 'renewed our own HTTPS certificate')
    },
  }
}

const holdsAt = ({ notBefore, notAfter }: ServerCertificate, now: Date): boolean =>
  notBefore <= now && !hasEnded(notAfter, now)

/** One for each set of names, so that replicas with different names leave each other's alone. */
export const ownProfileName = ({ names }: Pick<Config, 'names'>): string =>
  `${own.profile}-${hash('sha256', canonicalJson(names)).slice(0, 8)}`

/** The profile of our own certificate: exactly the configured names, for a day, or what is left of the issuer's last one. */
export const ownProfile = ({ names }: Pick<Config, 'names'>, authority: string): object => {
  const values = (kind: string): string[] => names.filter((name) => name.kind === kind).map((name) => name.value)
  const dns = values('dns')
  const ip = values('ip').map((value) => `${value}/${value.includes(':') ? 128 : 32}`)
  return {
    name: ownProfileName({ names }),
    authority,
    validity: { default: '24h', max: '24h', over: 'shorten', backdate: '5m' },
    keys: [{ ec: ['P-256'] }],
    subject: { others: 'refuse' },
    names: {
      ...(dns.length > 0 && { dns: { allow: dns, ...formsOf(names) } }),
      ...(ip.length > 0 && { ip: { allow: ip } }),
    },
    keyUsage: ['digitalSignature'],
    extendedKeyUsage: ['serverAuth'],
    revocation: ['crl', 'ocsp'],
  }
}

/** What a profile takes only where it says so, and these names have; said of nothing else, so that most have the profile of ever. */
const formsOf = (names: Config['names']): object => ({
  ...(names.some(isWildcard) && { wildcards: true }),
  ...(names.some(hasUnderscore) && { underscores: true }),
  ...(names.some(({ value }) => aceLabelsOf(value).length > 0) && { internationalized: true }),
})

/** Certifies keys that answer for an issuer, for a week; whichever state it is in, but retired. */
export const responderCertifier =
  (stores: Stores, issuance: Issuance) =>
  async (issuer: Issuer, csr: Buffer): Promise<Buffer> => {
    const document = responderProfile(issuer.authority)
    await stores.policies.put(document, own.principal, {})
    const caller = await ownCaller(stores, document.name)
    return (await issuance.issue(caller, { csr, profile: document.name, issuer: issuer.name })).certificate
  }

/** The profile of what answers for the issuers of an authority (RFC 6960 4.2.2.2). */
const responderProfile = (authority: string) => ({
  name: `${own.responderProfile}-${hash('sha256', authority).slice(0, 8)}`,
  description: `Answers for the issuers of authority ${authority}`,
  authority,
  validity: { default: '7d', max: '7d', over: 'shorten', backdate: '5m' },
  keys: [{ ec: ['P-256'] }],
  subject: { commonName: { fixed: 'Chancery OCSP responder' }, others: 'refuse' },
  keyUsage: ['digitalSignature'],
  extendedKeyUsage: ['OCSPSigning'],
  revocation: 'none',
})

/** How long a start waits for a key before it serves under a stand-in. */
const keyPatienceMs = 4_000

/** After a renewal that failed. */
const renewAgainMs = 60_000
