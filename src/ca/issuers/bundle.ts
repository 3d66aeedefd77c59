/**
 * What those who rely on an authority must trust, and until when: the old beside the new while a rotation goes on; and what
 * is sent to them so that they find a way there.
 */
import { parseAnchor } from '../../x509/certificate.ts'
import type { IssuerRecord } from '../records.ts'

export interface Anchor {
  readonly certificate: Buffer
  /** The issuers of the authority for whose certificates it is needed. */
  readonly issuers: readonly string[]
  /** When the last certificate that needs it has expired, at the latest. */
  readonly neededUntil: Date
}

export type AnchorKind = 'issuers' | 'roots'

/**
 * Each anchor once, in the order of the issuers. An issuer that signs, or may sign yet, is needed until it expires; one
 * that has stopped, until the longest-lived certificate that it can have signed has.
 */
export const anchorsOf = (
  issuers: readonly IssuerRecord[],
  kind: AnchorKind,
  longestValiditySeconds: number,
): readonly Anchor[] => {
  const anchors = new Map<string, Anchor>()
  const live = issuers.filter(({ state }) => state !== 'retired')
  for (const { issuer, certificate } of live.flatMap((issuer) => anchorsIn[kind](issuer))) {
    const key = certificate.toString('base64')
    const before = anchors.get(key)
    const until = neededUntil(issuer, longestValiditySeconds)
    anchors.set(key, {
      certificate,
      // Several ways up from one may end at it.
      issuers: [...new Set(before?.issuers).add(issuer.name)],
      neededUntil: before && before.neededUntil > until ? before.neededUntil : until,
    })
  }
  return [...anchors.values()]
}

/** Each way up from the issuer, with the root last. */
export const waysUp = ({ chain, otherChains = [] }: IssuerRecord): readonly (readonly Buffer[])[] => [
  chain,
  ...otherChains,
]

/**
 * The issuer and all that is above it, each once, but for the roots: who trusts one has it, and whom it is sent to need
 * not trust it. A cross-certificate is no root, even of one with the same name.
 */
export const sentAlong = (issuer: IssuerRecord): readonly Buffer[] => {
  const sent = [issuer.certificate, ...waysUp(issuer).flatMap((way) => way.slice(0, -1))]
  return sent.filter((certificate, i) => sent.findIndex((other) => other.equals(certificate)) === i)
}

interface Placed {
  readonly issuer: IssuerRecord
  readonly certificate: Buffer
}

const anchorsIn: Readonly<Record<AnchorKind, (issuer: IssuerRecord) => readonly Placed[]>> = {
  issuers: (issuer) => [{ issuer, certificate: issuer.certificate }],
  roots: (issuer) => waysUp(issuer).flatMap((way) => way.slice(-1).map((certificate) => ({ issuer, certificate }))),
}

const neededUntil = ({ certificate, state, since }: IssuerRecord, longestValiditySeconds: number): Date => {
  const { notAfter } = parseAnchor(certificate)
  if (state === 'staged' || state === 'active') return notAfter
  return new Date(Math.min(notAfter.getTime(), since.getTime() + longestValiditySeconds * 1000))
}
