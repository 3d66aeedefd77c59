/** What those who rely on an authority must trust, and until when: the old beside the new while a rotation goes on. */
import { parseCertificate } from '../x509/certificate.ts'
import type { IssuerRecord } from './records.ts'

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
  for (const issuer of issuers.filter(({ state }) => state !== 'retired')) {
    const certificate = kind === 'issuers' ? issuer.certificate : issuer.chain.at(-1)
    if (!certificate) continue
    const key = certificate.toString('base64')
    const before = anchors.get(key)
    const until = neededUntil(issuer, longestValiditySeconds)
    anchors.set(key, {
      certificate,
      issuers: [...(before?.issuers ?? []), issuer.name],
      neededUntil: before && before.neededUntil > until ? before.neededUntil : until,
    })
  }
  return [...anchors.values()]
}

const neededUntil = ({ certificate, state, since }: IssuerRecord, longestValiditySeconds: number): Date => {
  const { notAfter } = parseCertificate(certificate).facts
  if (state === 'staged' || state === 'active') return notAfter
  return new Date(Math.min(notAfter.getTime(), since.getTime() + longestValiditySeconds * 1000))
}
