/**
 * Keys that answer for an issuer (RFC 6960 4.2.2.2): one for each issuer and instance, made when the first question
 * comes, kept in memory only, and certified for days by the usual cycle. So the issuer's own key is not worked, and what
 * an answering process could give away ends by itself.
 */
import { generateKeyPairSync, sign } from 'node:crypto'

import { hasEnded } from '../../policy/validity.ts'
import { type SignatureAlgorithm, signatureAlgorithm } from '../../x509/algorithms.ts'
import { parseCertificate } from '../../x509/certificate.ts'
import { keyBits } from '../../x509/keys.ts'
import { issuerHashes } from '../../x509/ocsp.ts'
import { encodeRequest } from '../../x509/request.ts'
import type { Issuer } from '../issuers/issuer.ts'

export interface Responder {
  readonly certificate: Buffer
  /** SHA-1 of its key bits: its id in answers. */
  readonly keyHash: Buffer
  readonly algorithm: SignatureAlgorithm
  /** Milliseconds since 1970. */
  readonly notAfter: number
  readonly sign: (tbs: Buffer) => Buffer
}

export interface Responders {
  /** Rejects when the issuer cannot certify one, and there is none that still holds. */
  of(issuer: Issuer): Promise<Responder>
  /** Whether it is the one that answers: what another has signed before may be by one that was revoked. */
  isCurrent(issuer: Issuer, responder: Responder): boolean
  /** Makes those anew that have been asked for, and have lived half of their time or are revoked. */
  renew(): Promise<void>
}

export interface RespondersDeps {
  /** Certifies a request (PKCS#10, DER) under the issuer. */
  readonly certify: (issuer: Issuer, csr: Buffer) => Promise<Buffer>
  /** Whether answers for the issuer of this name are still given. */
  readonly isInUse: (name: string) => boolean
  readonly isRevoked: (issuer: Issuer, certificate: Buffer) => Promise<boolean>
  readonly clock: () => Date
  readonly elapsedMs?: () => number
}

interface Held {
  readonly issuer: Issuer
  readonly responder: Responder
  readonly renewAt: number
}

export const openResponders = ({
  certify,
  isInUse,
  isRevoked,
  clock,
  elapsedMs = () => performance.now(),
}: RespondersDeps): Responders => {
  const held = new Map<string, Held>()
  const making = new Map<string, Promise<Responder>>()
  const failed = new Map<string, { readonly error: unknown; readonly until: number }>()

  const make = async (issuer: Issuer): Promise<Responder> => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const spki = publicKey.export({ type: 'spki', format: 'der' })
    const algorithm = signatureAlgorithm('ecdsa-sha256')
    const certificate = await certify(issuer, encodeRequest({ subject: [], names: [], spki }, privateKey, algorithm))
    const { notBefore, notAfter } = parseCertificate(certificate).facts
    const responder: Responder = {
      certificate,
      keyHash: issuerHashes(Buffer.alloc(0), keyBits(spki)).sha1.keyHash,
      algorithm,
      notAfter: notAfter.getTime(),
      sign: (tbs) => sign(algorithm.hash, tbs, { key: privateKey, ...algorithm.signOptions }),
    }
    held.set(issuer.name, { issuer, responder, renewAt: (notBefore.getTime() + notAfter.getTime()) / 2 })
    return responder
  }

  /** One at a time for an issuer, whoever waits for it. */
  const makeOnce = (issuer: Issuer): Promise<Responder> => {
    const under = making.get(issuer.name)
    if (under) return under
    if (isOver(issuer, clock())) return Promise.reject(new Error(`the issuer ${issuer.name} has ended`))
    // Each try is a request on record, and strangers may ask all the time.
    const last = failed.get(issuer.name)
    if (last && last.until > elapsedMs()) return Promise.reject(last.error)
    const made = make(issuer)
      .catch((error: unknown) => {
        // Not by the time of day: a clock that was ahead may be what it failed for, and is set right.
        failed.set(issuer.name, { error, until: elapsedMs() + retryMs })
        throw error
      })
      .finally(() => making.delete(issuer.name))
    making.set(issuer.name, made)
    return made
  }

  /** Its certificate says `nocheck`: nobody but us would see that it is revoked. Until there is another one, it answers. */
  const isDue = async ({ issuer, responder, renewAt }: Held): Promise<boolean> =>
    renewAt < clock().getTime() || (await isRevoked(issuer, responder.certificate))

  return {
    of: async (issuer) => {
      const known = held.get(issuer.name)
      return known && !hasEnded(new Date(known.responder.notAfter), clock()) ? known.responder : makeOnce(issuer)
    },
    isCurrent: (issuer, responder) => held.get(issuer.name)?.responder === responder,
    renew: async () => {
      // Of one that has retired or ended nobody gets an answer, and each try would be a refusal on record, for ever.
      for (const [name, { issuer }] of held) if (!isInUse(name) || isOver(issuer, clock())) held.delete(name)
      await Promise.all(
        [...held.values()].map(async (one) => {
          if (await isDue(one)) await makeOnce(one.issuer)
        }),
      )
    },
  }
}

/** Then it certifies nothing, and to ask it would be a refusal on record each time. */
const isOver = ({ facts }: Issuer, now: Date): boolean => hasEnded(facts.notAfter, now)

const retryMs = 2_000
