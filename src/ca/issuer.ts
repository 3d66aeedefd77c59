/**
 * One CA certificate with its chain and its key. An issuer refuses a bad world when it is opened: the key's public half
 * must be the certificate's, and a trial signature over a fixed text must verify.
 */
import { createHash, createPublicKey, verify } from 'node:crypto'

import { Problem } from '../errors.ts'
import { SigningFault, type SigningKey, trialText } from '../keys/signing-key.ts'
import type { Context, Plan } from '../policy/decide.ts'
import type { SignatureAlgorithm } from '../x509/algorithms.ts'
import { parseCertificate, type TbsFacts } from '../x509/certificate.ts'
import { compileTemplate, type Template } from '../x509/tbs.ts'
import { withDeadline } from './deadline.ts'
import type { Meter } from './meter.ts'
import type { IssuerRecord } from './records.ts'

export interface IssuerRow extends IssuerRecord {
  readonly publicUrl: string
  readonly shards: number
  readonly keyUri: string
}

export interface Issuer {
  readonly name: string
  readonly authority: string
  readonly state: IssuerRecord['state']
  readonly certificate: Buffer
  /** DER of the subject, as the issuer field of what it signs repeats it. */
  readonly subject: Buffer
  readonly facts: TbsFacts
  /** Read certificates above this one, nearest first. */
  readonly above: readonly TbsFacts[]
  /** What is sent along with a leaf: this certificate and those above it, without the root. */
  readonly chain: readonly Buffer[]
  readonly shards: number
  readonly key: SigningKey
  readonly bounds: Context['issuer']
  template(plan: Pick<Plan, 'keyUsage' | 'extendedKeyUsage' | 'revocation'>): Template
  sign(tbs: Buffer): Promise<Buffer | SigningFault>
  /** Why the key is known not to sign, if it is; only a probe that succeeds clears it. */
  readonly fault: string | undefined
  /** Throws `hsm.unavailable` while the key is known not to sign. */
  assertAvailable(): void
  /** A trial signature over a fixed text, checked. Resolves with undefined, or with the reason why not. */
  probe(): Promise<string | undefined>
}

export interface Issuers {
  /** The authority's active issuer. Throws `issuer.unavailable`. */
  active(authority: string): Issuer
  /** Throws `issuer.not_found`. */
  byName(name: string): Issuer
  all(): readonly Issuer[]
  /** By the SHA-256 (hex) of its SPKI: a CA's own key is never a subject's. */
  isIssuerKey(sha256: string): boolean
}

export interface IssuerOptions {
  readonly meter: Meter
  /** How long one signature may take. */
  readonly deadlineMs: number
}

export const openIssuer = async (
  row: IssuerRow,
  key: SigningKey,
  { meter, deadlineMs }: IssuerOptions,
): Promise<Issuer> => {
  const { facts } = parseCertificate(row.certificate)
  if (!facts.ca) throw new Error(`The certificate of issuer ${row.name} is not a CA certificate.`)
  if (!facts.spki.equals(key.spki)) throw new Error(`The key ${key.id} is not the key of issuer ${row.name}.`)
  if (!facts.keyIdentifier) throw new Error(`The certificate of issuer ${row.name} has no subject key identifier.`)
  const keySha256 = createHash('sha256').update(facts.spki).digest('hex')
  const templateOf = templates(row, facts, key.algorithm)
  const verifyInput = {
    key: createPublicKey({ key: facts.spki, format: 'der', type: 'spki' }),
    ...key.algorithm.signOptions,
  }
  let fault: string | undefined

  /** One signature, within the deadline. A key that failed or hangs counts as gone until a probe finds it signing. */
  const signOne = async (message: Buffer): Promise<Buffer | SigningFault> => {
    const start = performance.now()
    const answer = await withDeadline(key.sign([message]), deadlineMs)
    const outcome =
      answer === 'late'
        ? new SigningFault('late', `no signature within ${deadlineMs} ms`)
        : (answer[0] ?? new SigningFault('unknown', 'the provider gave no answer'))
    fault = Buffer.isBuffer(outcome) ? undefined : outcome.message
    meter.keyOperation(
      row.name,
      (performance.now() - start) / 1000,
      Buffer.isBuffer(outcome) ? undefined : outcome.when,
    )
    return outcome
  }

  const issuer: Issuer = {
    name: row.name,
    authority: row.authority,
    state: row.state,
    certificate: row.certificate,
    subject: facts.subjectDer,
    facts,
    above: row.chain.map((der) => parseCertificate(der).facts),
    chain: [row.certificate, ...row.chain.filter((der) => !isSelfIssued(parseCertificate(der).facts))],
    shards: row.shards,
    key,
    bounds: { name: row.name, notBefore: facts.notBefore, notAfter: facts.notAfter, keySha256 },
    template: templateOf,
    sign: signOne,
    get fault() {
      return fault
    },
    assertAvailable: () => {
      if (fault !== undefined)
        throw new Problem('hsm.unavailable', 'The signing key does not answer at present.', { retryAfter: 5 })
    },
    probe: async () => {
      const signature = await signOne(trialText)
      const valid = Buffer.isBuffer(signature) && verify(key.algorithm.hash, trialText, verifyInput, signature)
      if (Buffer.isBuffer(signature) && !valid) fault = 'the trial signature does not verify'
      return fault
    },
  }
  const reason = await issuer.probe()
  if (reason !== undefined) throw new Error(`The key of issuer ${row.name} does not sign: ${reason}.`)
  return issuer
}

/** Issuers by authority and name. Two active ones for an authority: the one created last. */
export const issuersOf = (opened: readonly Issuer[]): Issuers => {
  const active = new Map(
    opened.filter((issuer) => issuer.state === 'active').map((issuer) => [issuer.authority, issuer]),
  )
  const named = new Map(opened.map((issuer) => [issuer.name, issuer]))
  const keys = new Set(opened.map((issuer) => issuer.bounds.keySha256))
  return {
    active: (authority) => {
      const issuer = active.get(authority)
      if (issuer) return issuer
      throw new Problem('issuer.unavailable', `The authority ${JSON.stringify(authority)} has no active issuer.`, {
        retryAfter: 30,
      })
    },
    byName: (name) => {
      const issuer = named.get(name)
      if (issuer) return issuer
      throw new Problem('issuer.not_found', `There is no issuer ${JSON.stringify(name)}.`)
    },
    all: () => opened,
    isIssuerKey: (sha256) => keys.has(sha256),
  }
}

/** A template for each combination of usages that profiles of this issuer yield: a handful. */
const templates = (row: IssuerRow, facts: TbsFacts, signature: SignatureAlgorithm): Issuer['template'] => {
  const compiled = new Map<string, Template>()
  const keyIdentifier = facts.keyIdentifier ?? Buffer.alloc(0)
  const issuer = { subject: facts.subjectDer, keyIdentifier, signature, publicUrl: row.publicUrl, name: row.name }
  return ({ keyUsage, extendedKeyUsage, revocation }) => {
    const id = `${keyUsage}|${extendedKeyUsage}|${revocation}`
    const found = compiled.get(id)
    if (found) return found
    const template = compileTemplate({ issuer, keyUsage, extendedKeyUsage, revocation })
    compiled.set(id, template)
    return template
  }
}

const isSelfIssued = (facts: TbsFacts): boolean => facts.issuer.equals(facts.subjectDer)
