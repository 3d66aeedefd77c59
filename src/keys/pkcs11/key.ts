/**
 * A private key in a token. It is used only after it was seen to be the only one that its URI means, to be born in the
 * token and unable to leave it, and to sign what its public half verifies.
 */
import { createPublicKey, randomBytes, verify } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import type { Handle } from 'pkcs11js'

import {
  defaultSignatureAlgorithm,
  type KeyAlgorithmId,
  type KeyKind,
  readKeyKind,
  type SignatureAlgorithm,
  signatureAlgorithm,
} from '../../x509/algorithms.ts'
import { parsePublicKey } from '../../x509/keys.ts'
import { type KeyAttributes, SigningFault, type SigningKey, trialText } from '../signing-key.ts'
import { cka, cko, generationOf, type Signing, signingsFor } from './mechanisms.ts'
import { faultOf, type Token } from './module.ts'
import { assertFree, findObjects, keepAlone, nameOf, privateTemplate, reader, theOne } from './objects.ts'
import { makePair } from './pair.ts'
import { type ReadAttribute, spkiOf } from './public-key.ts'
import { judgeFailure, notLoggedIn, type Remedy } from './return-values.ts'
import type { Sessions } from './sessions.ts'
import { TokenFault } from './token-fault.ts'
import { formatPkcs11Uri, type Pkcs11Uri } from './uri.ts'

export interface TokenKeyDeps {
  readonly token: Token
  readonly sessions: Sessions
  /** For one operation, waiting for a session included. */
  readonly deadlineMs: number
  /** Told of every call that failed in signing, and what would help. */
  readonly failed: (remedy: Remedy, name: string, reason: string) => void
}

export const openTokenKey = (deps: TokenKeyDeps, uri: Pkcs11Uri): Promise<SigningKey> =>
  openAs(deps, uri, 'make one there with "chancery issuer create"')

const openAs = async (deps: TokenKeyDeps, uri: Pkcs11Uri, otherwise: string): Promise<SigningKey> => {
  const { token } = deps
  const session = await sessionFor(deps)
  let found: ReturnType<typeof findPair>
  try {
    found = findPair(token, session, uri)
  } catch (error) {
    if (error instanceof TokenFault) deps.sessions.give(session)
    else deps.sessions.discard(session)
    throw faultOf(error, `The token ${token.label} does not show its keys`)
  }
  deps.sessions.give(session)
  const { handle, spki, attributes } = found
  assertSafe(uri, attributes, otherwise)
  const { algorithm, signing } = wayToSign(token, uri, parsePublicKey(spki).algorithm.id)
  const sign = openSigning(deps, { handle, signing, octets: maxSignatureOctets(spki) })
  const key: SigningKey = {
    id: formatPkcs11Uri({ ...uri, token: token.label, serial: token.serial }),
    algorithm,
    spki,
    attributes,
    sign: (messages, withinMs = deps.deadlineMs) => Promise.all(messages.map((message) => sign(message, withinMs))),
    close: async () => {},
  }
  await assertSigns(key, found.asksEachTime)
  return key
}

/** Makes a pair in the token, under a label and an id that no key there has yet. */
export const createTokenKey = async (deps: TokenKeyDeps, uri: Pkcs11Uri, kind: KeyKind): Promise<SigningKey> => {
  const { token } = deps
  const label = uri.object
  if (label === undefined)
    throw new TokenFault('request', 'A new key in a token needs a label: add object=<label> to its URI.')
  const session = await sessionFor(deps)
  let isGood = true
  try {
    assertFree(token, session, label, uri.id)
    const generation = generationOf(kind)
    if (!token.mechanisms.has(generation.mechanism))
      throw new TokenFault('request', `The token ${token.label} cannot make a key of type ${kind}.`)
    // One that could not sign as its URI says would lie there, and its label be taken.
    wayToSign(token, uri, readKeyKind(kind).algorithm)
    const id = uri.id ?? randomBytes(16)
    const made = await makePair(token, session, { generation, label, id })
    keepAlone(token, session, { label, id, made })
  } catch (cause) {
    const fault = faultOf(cause, `The token ${token.label} does not make the key`)
    isGood = fault.remedy !== 'session'
    throw fault
  } finally {
    if (isGood) deps.sessions.give(session)
    else deps.sessions.discard(session)
  }
  return openAs(deps, uri, 'so says the token of a key that it has just made. Take it away, and use another token')
}

// Finding -----------------------------------------------------------------------------------------------------------

const findPair = (token: Token, session: Handle, uri: Pkcs11Uri) => {
  const handle = theOne(token, findObjects(token, session, privateTemplate(uri)), `private key ${nameOf(uri)}`)
  const readPrivate = reader(token, session, handle)
  const id = readPrivate(cka.id)
  const half = id?.length ? { type: cka.id, value: id } : { type: cka.label, value: Buffer.from(uri.object ?? '') }
  const publicHandle = theOne(
    token,
    findObjects(token, session, [{ type: cka.class, value: cko.publicKey }, half]),
    `public key beside the private key ${nameOf(uri)}`,
  )
  return {
    handle,
    spki: spkiOf(reader(token, session, publicHandle)),
    attributes: attributesOf(readPrivate),
    asksEachTime: asksEachTime(readPrivate),
  }
}

const attributesOf = (read: ReadAttribute): KeyAttributes => {
  const flag = (type: number): boolean | null => {
    const value = read(type)
    return value === undefined ? null : value[0] === 1
  }
  return {
    sensitive: flag(cka.sensitive),
    extractable: flag(cka.extractable),
    alwaysSensitive: flag(cka.alwaysSensitive),
    neverExtractable: flag(cka.neverExtractable),
    local: flag(cka.local),
  }
}

/** Only says why a key does not sign: one that does is not left alone for how its module answers this. */
const asksEachTime = (read: ReadAttribute): boolean => {
  try {
    return read(cka.alwaysAuthenticate)?.[0] === 1
  } catch {
    return false
  }
}

/** What a module does not tell is on the record as null; what it tells must be good. */
const assertSafe = (uri: Pkcs11Uri, attributes: KeyAttributes, otherwise: string): void => {
  const bad = Object.entries(safe).filter(
    ([name, value]) => (attributes[name as keyof KeyAttributes] ?? value) !== value,
  )
  if (bad.length === 0) return
  const told = bad.map(([name, value]) => `${name} is ${!value}`).join(', ')
  throw new TokenFault('request', `The key ${nameOf(uri)} is not held by its token alone (${told}): ${otherwise}.`)
}

// Signing -----------------------------------------------------------------------------------------------------------

interface Ready {
  readonly handle: Handle
  readonly signing: Signing
  /** Of the longest signature. */
  readonly octets: number
}

interface Begun {
  readonly start: number
  /** Operations in all sessions until then. */
  readonly endedBefore: number
}

/**
 * One message at a time in one session. Off the event loop, until the module was seen to be so quick that handing over
 * costs more; on it, until it was seen to be slow.
 */
const openSigning = (
  { token, sessions, deadlineMs, failed }: TokenKeyDeps,
  { handle, signing, octets }: Ready,
): ((message: Buffer, withinMs: number) => Promise<Buffer | SigningFault>) => {
  const { mechanism, parameter, input, output } = signing
  const wanted = parameter ? { mechanism, parameter } : { mechanism }
  const speed = openSpeed()
  /** Signatures that no session has begun, since one has. */
  let unbegun = 0

  const done = (session: Handle, start: number): void => {
    unbegun = 0
    speed.observe(performance.now() - start)
    sessions.give(session)
  }
  const spoilt = (session: Handle, call: 'C_Sign' | 'C_SignInit', error: unknown): SigningFault => {
    const { name, remedy } = judgeFailure(error)
    sessions.discard(session)
    failed(remedy, name, `${call}: ${name}`)
    const when = call === 'C_Sign' ? 'unknown' : 'before'
    return new SigningFault(when, `the token ${token.label} did not sign (${name})`, error)
  }

  /**
   * Of what waited before, less than the time is gone: its module hangs only where it takes as long as any signature may. One
   * that does one after another does not hang either, as long as others end, and no more of them than could be before it: it
   * is asked for as many at a time from now on as it ends in half of the time.
   */
  const waitOn = async (session: Handle, signature: Promise<Buffer>, { start, endedBefore }: Begun): Promise<void> => {
    let others = 0
    try {
      for (let untilMs = start + deadlineMs; ; untilMs = performance.now() + deadlineMs) {
        if ((await inTime(signature, Math.max(untilMs - performance.now(), 0))) !== 'late') return done(session, start)
        const ended = sessions.ended - endedBefore
        if (ended === others || ended > 2 * sessions.most) break
        sessions.narrow(Math.floor((ended - others) / 2))
        failed('session', 'slow', 'C_Sign returns late, one after another')
        others = ended
      }
      sessions.abandon(session)
      failed('token', 'late', 'C_Sign does not return')
    } catch (error) {
      spoilt(session, 'C_Sign', error)
    }
  }

  const signIn = async (session: Handle, message: Buffer, untilMs: number): Promise<Buffer | SigningFault> => {
    let call: 'C_Sign' | 'C_SignInit' = 'C_SignInit'
    try {
      const data = input(message)
      const start = performance.now()
      const endedBefore = sessions.ended
      token.lib.C_SignInit(session, wanted, handle)
      call = 'C_Sign'
      const room = Buffer.alloc(octets)
      const answer = speed.isQuick()
        ? token.lib.C_Sign(session, data, room)
        : token.lib.C_SignAsync(session, data, room)
      const signature = Buffer.isBuffer(answer) ? answer : await inTime(answer, untilMs - start)
      if (signature === 'late') {
        void waitOn(session, answer as Promise<Buffer>, { start, endedBefore })
        return new SigningFault('late', `the token ${token.label} did not sign in time`)
      }
      done(session, start)
      return output(signature)
    } catch (error) {
      return spoilt(session, call, error)
    }
  }

  /** One that was opened just now is as bad as the others: there are modules that find their device again only when they start. */
  const lostAll = ({ message, cause }: SigningFault): SigningFault => {
    const { name } = judgeFailure(cause)
    failed('token', name, `C_SignInit: ${name} in each session`)
    return new SigningFault('before', message, new TokenFault('token', message, cause))
  }

  return async (message, withinMs) => {
    const untilMs = performance.now() + withinMs
    /** What the last try has ended with, where each session ends so. */
    let inEach: SigningFault | undefined
    const notInTime = (): SigningFault =>
      inEach ? lostAll(inEach) : new SigningFault('before', `no session of the token ${token.label} was free in time`)
    for (;;) {
      const session = await sessions.take(untilMs - performance.now()).catch((error: unknown) => {
        const { name, remedy } = judgeFailure(error)
        failed(remedy, name, `C_OpenSession: ${name}`)
        return new SigningFault('before', `the token ${token.label} gives no session (${name})`, error)
      })
      if (session instanceof SigningFault) return session
      if (session === 'late') return notInTime()
      if (session === 'full') return new SigningFault('before', `too many wait for the token ${token.label}`)
      // One may come when less of the time is left than a signature takes here, or none: nobody would wait for it to its end. What
      // had to wait for little of its time is tried all the same, or a token that was slow once would never be seen to be quick.
      if (performance.now() + Math.min(speed.usualMs(), withinMs / 2) >= untilMs) {
        sessions.giveBack(session)
        return notInTime()
      }
      const outcome = await signIn(session, message, untilMs)
      // The key was not touched, and only this session is to blame: another one may do.
      const isWorthAnother =
        outcome instanceof SigningFault && outcome.when === 'before' && judgeFailure(outcome.cause).remedy === 'session'
      if (!isWorthAnother) return outcome
      unbegun += 1
      inEach = unbegun > sessions.most ? outcome : undefined
      if (performance.now() >= untilMs) return inEach ? lostAll(inEach) : outcome
      // Asked without a pause, the module would keep this process from all else.
      if (inEach) await sleep(askAgainMs)
    }
  }
}

/** Handing an operation to the thread pool costs more than a quick module takes: measured, see docs/performance.md. */
const openSpeed = () => {
  let meanMs = 1
  let seen = 0
  let quick = false
  return {
    isQuick: (): boolean => quick,
    usualMs: (): number => meanMs,
    observe: (tookMs: number): void => {
      seen += 1
      meanMs = seen === 1 ? tookMs : Math.min(meanMs, tookMs) * 0.7 + Math.max(meanMs, tookMs) * 0.3
      if (quick) quick = meanMs < slowAboveMs
      else quick = seen >= trials && meanMs < quickBelowMs
    },
  }
}

/** Signatures over the fixed text, checked with the public half: the key is the one that it says it is. */
const assertSigns = async (
  { id, spki, algorithm, sign }: Pick<SigningKey, 'id' | 'spki' | 'algorithm' | 'sign'>,
  asksEachTime: boolean,
): Promise<void> => {
  const key = createPublicKey({ key: spki, format: 'der', type: 'spki' })
  for (let i = 0; i < trials; i += 1) {
    const [signature] = await sign([trialText])
    if (!Buffer.isBuffer(signature)) {
      const { code, remedy } = signature?.cause ? judgeFailure(signature.cause) : noAnswer
      const told = `The key ${id} does not sign: ${signature?.message}.`
      // After C_SignInit: before it, and in any other words, it is the token's trouble, whatever the key says of itself.
      const isEachTime = asksEachTime && signature?.when === 'unknown' && code === notLoggedIn
      throw isEachTime ? new TokenFault('request', `${told} ${eachTime}`) : new TokenFault(remedy, told)
    }
    if (!verify(algorithm.hash, trialText, { key, ...algorithm.signOptions }, signature))
      throw new TokenFault(
        'request',
        `The key ${id} signs what its public half does not verify: the two do not belong together.`,
      )
  }
}

/** As the URI says, or else as keys of this type usually do. */
const wayToSign = (
  token: Token,
  uri: Pkcs11Uri,
  kind: KeyAlgorithmId,
): { readonly algorithm: SignatureAlgorithm; readonly signing: Signing } => {
  const algorithm = uri.signature ? signatureAlgorithm(uri.signature) : defaultSignatureAlgorithm(kind)
  if (!algorithm.keys.includes(kind))
    throw new TokenFault('request', `The key ${nameOf(uri)} is ${kind}, and cannot sign by ${algorithm.id}.`)
  const signing = signingsFor(algorithm).find(({ mechanism }) => token.mechanisms.has(mechanism))
  if (signing === undefined) throw new TokenFault('request', `The token ${token.label} cannot sign by ${algorithm.id}.`)
  return { algorithm, signing }
}

const sessionFor = async ({ sessions, token, deadlineMs }: TokenKeyDeps): Promise<Handle> => {
  const session = await sessions.take(deadlineMs).catch((error: unknown) => {
    throw faultOf(error, `The token ${token.label} gives no session`)
  })
  if (typeof session === 'string') throw new TokenFault('session', `No session of the token ${token.label} is free.`)
  return session
}

const inTime = async <T>(work: Promise<T>, withinMs: number): Promise<T | 'late'> => {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<'late'>((resolve) => {
    // One turn more: an answer that came while this process was held up is not late.
    timer = setTimeout(() => setImmediate(() => resolve('late')), withinMs)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}

/** An ML-DSA-87 signature has 4,627 octets; an RSA one as many as its modulus, of which the SPKI has more. */
const maxSignatureOctets = (spki: Buffer): number => Math.max(spki.length + 64, 4_627)

const safe: Readonly<Record<keyof KeyAttributes, boolean>> = {
  sensitive: true,
  extractable: false,
  alwaysSensitive: true,
  neverExtractable: true,
  local: true,
}
/** Told where it does not sign: some modules say so of keys that do. */
const eachTime = 'It asks for a login at each signature (CKA_ALWAYS_AUTHENTICATE): make one that does not.'
const noAnswer = { code: -1, remedy: 'session' } as const
const trials = 3
const askAgainMs = 20
const quickBelowMs = 0.4
const slowAboveMs = 1
