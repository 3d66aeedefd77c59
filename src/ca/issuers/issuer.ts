/**
 * One CA certificate with its chain and its key. The key is opened when it can be, and opened again until it can: what
 * is not the certificate's own key, or does not sign a fixed text so that it verifies, is not used.
 */
import { createPublicKey, hash, verify } from 'node:crypto'

import { Problem } from '../../errors.ts'
import { LateSignature, SigningFault, type SigningKey, trialText } from '../../keys/signing-key.ts'
import { withDeadline } from '../../lib/timeout.ts'
import type { Context, Plan } from '../../policy/decide.ts'
import type { KeyAlgorithmId, SignatureAlgorithm } from '../../x509/algorithms.ts'
import { parseAnchor, parseCertificate, type TbsFacts } from '../../x509/certificate.ts'
import { parsePublicKey } from '../../x509/keys.ts'
import { compileTemplate, type Template } from '../../x509/tbs.ts'
import type { Meter } from '../meter.ts'
import type { IssuerRecord } from '../records.ts'
import { sentAlong, waysUp } from './bundle.ts'

export interface IssuerRow extends IssuerRecord {
  readonly publicUrl: string
  readonly keyUri: string
}

export interface Issuer {
  readonly name: string
  readonly authority: string
  readonly certificate: Buffer
  /** DER of the subject, as the issuer field of what it signs repeats it. */
  readonly subject: Buffer
  readonly facts: TbsFacts
  /** Of its own key: what it signs with follows from it. */
  readonly keyType: KeyAlgorithmId
  /** The ways up to a root: read certificates above this one, nearest first. */
  readonly ways: readonly (readonly TbsFacts[])[]
  /** What is sent along with a leaf: this certificate and those above it, without the roots. */
  readonly chain: readonly Buffer[]
  /** Takes the ways up from the newest record, and where the key is: what is opened is used until it was opened there, or could not be. */
  follow(row: IssuerRow): void
  readonly shards: number
  /** What the URLs in its certificates begin with. */
  readonly publicUrl: string
  /** Throws `key.unavailable` until the key was opened once. */
  readonly key: SigningKey
  readonly bounds: Context['issuer']
  /** Throws `key.unavailable` until the key was opened once. */
  template(plan: Pick<Plan, 'keyUsage' | 'extendedKeyUsage' | 'revocation'>): Template
  /** A `LateSignature` at its deadline. */
  sign(tbs: Buffer): Promise<Buffer | SigningFault>
  /** Why the key is known not to sign, or to sign wrongly, if it is. */
  readonly fault: string | undefined
  /** What it signed did not verify: out of use until a probe sees it sign rightly. */
  distrust(): void
  /** Throws `key.unavailable` while the key is known not to sign. */
  assertAvailable(): void
  /** Opens the key if need be, and checks a trial signature. Resolves with undefined, or with the reason why not. */
  probe(): Promise<string | undefined>
  /** While the key is opened for the first time: it has been, or could not be, when this resolves. */
  readonly opening: Promise<unknown> | undefined
  close(): Promise<void>
}

export interface IssuerOptions {
  /** Of this URI. Rejects with a sentence while it can't be opened. */
  readonly openKey: (uri: string) => Promise<SigningKey>
  readonly meter: Meter
  /** How long one signature, or one opening, may take. */
  readonly deadlineMs: number
  /** Told when a key was opened and found to be the issuer's, and when it signs after it was opened again. */
  readonly opened?: (issuer: string, key: SigningKey) => void
}

/**
 * With its key still to be opened: one that does not sign is a fault, for now. Throws for a certificate that can't be an
 * issuer's.
 */
export const newIssuer = (row: IssuerRow, options: IssuerOptions): Issuer => {
  const { facts } = parseCertificate(row.certificate)
  if (!facts.ca) throw new Error(`The certificate of issuer ${row.name} is not a CA certificate.`)
  if (!facts.keyIdentifier) throw new Error(`The certificate of issuer ${row.name} has no subject key identifier.`)
  const keySha256 = hash('sha256', facts.spki)
  const holder = holdKey(row, facts, options)
  let up = readWays(row)
  let opening: Promise<unknown> | undefined = holder.probe().finally(() => {
    opening = undefined
  })
  return {
    name: row.name,
    authority: row.authority,
    certificate: row.certificate,
    subject: facts.subjectDer,
    facts,
    keyType: parsePublicKey(facts.spki).algorithm.id,
    get ways() {
      return up.ways
    },
    get chain() {
      return up.chain
    },
    follow: (newest) => {
      up = readWays(newest)
      holder.follow(newest.keyUri)
    },
    shards: row.shards,
    publicUrl: row.publicUrl,
    bounds: { name: row.name, notBefore: facts.notBefore, notAfter: facts.notAfter, keySha256 },
    get key() {
      return holder.key()
    },
    template: templates(row, facts, () => holder.key().algorithm),
    sign: holder.sign,
    get fault() {
      return holder.fault()
    },
    distrust: holder.distrust,
    assertAvailable: () => {
      if (holder.fault() !== undefined) throw unavailable()
    },
    probe: holder.probe,
    get opening() {
      return opening
    },
    close: holder.close,
  }
}

const readWays = (row: IssuerRow): Pick<Issuer, 'ways' | 'chain'> => ({
  ways: waysUp(row).map((way) => way.map(parseAnchor)),
  chain: sentAlong(row),
})

/** A key that failed or hangs counts as gone until a probe finds it signing. */
const holdKey = (row: IssuerRow, facts: TbsFacts, { openKey, meter, deadlineMs, opened }: IssuerOptions) => {
  const publicKey = createPublicKey({ key: facts.spki, format: 'der', type: 'spki' })
  const tellOpening = openTelling((found) => opened?.(row.name, found))
  const openAt = (uri: string): Promise<SigningKey> => openOwn(openKey(uri), row.name, facts.spki)
  const { held, ...place } = openPlace(row.keyUri, { openAt, opened: tellOpening, deadlineMs })
  let fault: string | undefined = notOpened
  /** That it signs is no proof that it signs rightly: only a trial that verifies clears this. */
  let wrong: string | undefined

  const sign = async (message: Buffer): Promise<Buffer | SigningFault> => {
    const start = performance.now()
    const asked = held.inUse
    const asking = asked ? place.ask(asked, message) : Promise.resolve([new SigningFault('before', fault ?? notOpened)])
    const answer = await withDeadline(asking, deadlineMs)
    const outcome =
      answer === 'late'
        ? new LateSignature(`no signature within ${deadlineMs} ms`, asking.then(outcomeIn, noAnswer))
        : outcomeIn(answer)
    // What is answered where it was says nothing of where it is now.
    if (asked === held.inUse) fault = Buffer.isBuffer(outcome) ? undefined : outcome.message
    if (asked && asked === held.inUse && fault === undefined) tellOpening(asked)
    const seconds = (performance.now() - start) / 1000
    meter.keyOperation(row.name, seconds, Buffer.isBuffer(outcome) ? undefined : outcome.when)
    return outcome
  }

  const tryOut = async (found: SigningKey): Promise<string | undefined> => {
    const signature = await sign(trialText)
    if (!Buffer.isBuffer(signature)) return fault
    const { hash, signOptions } = found.algorithm
    const valid = verify(hash, trialText, { key: publicKey, ...signOptions }, signature)
    wrong = valid ? undefined : 'the trial signature does not verify'
    return wrong ?? fault
  }

  const probe = async (): Promise<string | undefined> => {
    try {
      const found = await place.reach()
      if (found) return await tryOut(found)
    } catch (error) {
      fault = (error as Error).message
    }
    return wrong ?? fault
  }

  return {
    key: (): SigningKey => {
      if (held.key) return held.key
      throw unavailable()
    },
    fault: (): string | undefined => wrong ?? fault,
    distrust: (): void => {
      wrong = 'a signature that it made does not verify'
    },
    sign,
    follow: (uri: string): void => {
      if (place.moveTo(uri)) void probe()
    },
    probe,
    close: place.close,
  }
}

interface PlaceOptions extends Pick<IssuerOptions, 'deadlineMs'> {
  readonly openAt: IssuerOptions['openKey']
  readonly opened: (found: SigningKey) => void
}

/** Where a key is, which the records may correct: what was opened where it was serves until it was looked for where it is. */
const openPlace = (first: string, { openAt, opened, deadlineMs }: PlaceOptions) => {
  let uri = first
  /** What it is, once it was opened; by which it signs, and where that was opened, or was not. */
  const held: { key?: SigningKey; inUse?: SigningKey | undefined; at?: string } = {}
  let opening: { readonly at: string; readonly found: Promise<SigningKey> } | undefined
  /** Why the last opening came to nothing. */
  let refusal: string | undefined
  const underWay = new Set<Promise<unknown>>()

  /** What was asked of the one before is still answered. */
  const replace = (found: SigningKey | undefined, at: string): void => {
    const before = held.inUse
    held.inUse = found
    held.at = at
    if (found) held.key = found
    if (before)
      void Promise.allSettled([...underWay])
        .then(() => before.close())
        .catch(() => {})
  }

  const look = async (at: string): Promise<SigningKey> => {
    const found = await openAt(at).catch((error: Error) => error)
    // It was said to be elsewhere meanwhile, perhaps where it was: what is in use serves until it was looked for there.
    if (at !== uri && held.inUse) {
      if ('close' in found) await found.close()
      return held.inUse
    }
    if (found instanceof Error) {
      // It is not where the records say: whoever asks is told, before a start finds out.
      replace(undefined, at)
      refusal = at === uri ? found.message : undefined
      throw found
    }
    replace(found, at)
    opened(found)
    return found
  }

  /** One opening at a time, however long it takes. */
  const open = (): Promise<SigningKey> => {
    // Whoever knows where it is now is not answered by what was begun where it was.
    if (opening && opening.at !== uri) return opening.found.then(open, open)
    const done = (): void => {
      opening = undefined
    }
    opening ??= { at: uri, found: look(uri).finally(done) }
    return opening.found
  }

  return {
    held: held as Readonly<typeof held>,
    ask: (asked: SigningKey, message: Buffer): ReturnType<SigningKey['sign']> => {
      const answer = asked.sign([message])
      underWay.add(answer)
      const done = (): boolean => underWay.delete(answer)
      answer.then(done, done)
      return answer
    },
    /** It is at this URI from now on; false where it was already. */
    moveTo: (newest: string): boolean => {
      if (newest === uri) return false
      uri = newest
      refusal = undefined
      return true
    },
    /** Opens it there if need be. Undefined while that takes long and another serves; rejects with why none does. */
    reach: async (): Promise<SigningKey | undefined> => {
      if (held.inUse && held.at === uri) return held.inUse
      const found = await withDeadline(open(), deadlineMs)
      if (found !== 'late') return found
      if (held.inUse) return undefined
      throw new Error(refusal ?? `the key ${uri} was not opened within ${deadlineMs} ms`)
    },
    close: async (): Promise<void> => {
      await (await opening?.found.catch(() => undefined))?.close()
      await held.inUse?.close()
    },
  }
}

const openOwn = async (opening: Promise<SigningKey>, name: string, spki: Buffer): Promise<SigningKey> => {
  const found = await opening
  if (found.spki.equals(spki)) return found
  await found.close()
  throw new Error(`the key ${found.id} is not the key of issuer ${name}`)
}

/** Once for each opening; of a key that comes and goes only a few in a while, and the newest when that is over. */
const openTelling = (tell: (key: SigningKey) => void): ((key: SigningKey) => void) => {
  let told: { readonly key: SigningKey; readonly openings: number | undefined } | undefined
  let times: readonly number[] = []
  return (key) => {
    const { openings } = key
    if (told?.key === key && told.openings === openings) return
    const now = performance.now()
    times = times.filter((time) => now - time < tellingSpanMs)
    if (times.length >= mostTellings) return
    times = [...times, now]
    told = { key, openings }
    tell(key)
  }
}
const mostTellings = 5
const tellingSpanMs = 600_000

const outcomeIn = ([outcome]: readonly (Buffer | SigningFault)[]): Buffer | SigningFault => outcome ?? noAnswer()

const noAnswer = (): SigningFault => new SigningFault('unknown', 'the provider gave no answer')
const notOpened = 'its key has not been opened yet'

const unavailable = (): Problem =>
  new Problem('key.unavailable', 'The signing key does not answer at present.', { retryAfter: 1 })

/** A template for each combination of usages that profiles of this issuer yield: a handful. */
const templates = (row: IssuerRow, facts: TbsFacts, signatureOf: () => SignatureAlgorithm): Issuer['template'] => {
  const compiled = new Map<string, Template>()
  const keyIdentifier = facts.keyIdentifier ?? Buffer.alloc(0)
  const issuer = { subject: facts.subjectDer, keyIdentifier, publicUrl: row.publicUrl, name: row.name }
  return ({ keyUsage, extendedKeyUsage, revocation }) => {
    const id = `${keyUsage}|${extendedKeyUsage}|${revocation}`
    const found = compiled.get(id)
    if (found) return found
    const template = compileTemplate({
      issuer: { ...issuer, signature: signatureOf() },
      keyUsage,
      extendedKeyUsage,
      revocation,
    })
    compiled.set(id, template)
    return template
  }
}
