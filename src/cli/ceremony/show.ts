/** What is about to be signed, as people read it; taken from the octets themselves, read back by the strict reader. */
import { hash } from 'node:crypto'

import type { RootCrlInput } from '../../ca/issuers/ceremony.ts'
import type { SigningKey } from '../../keys/signing-key.ts'
import type { TbsFacts } from '../../x509/certificate.ts'
import { parsePublicKey } from '../../x509/keys.ts'
import { formatSubtree, type Subtree } from '../../x509/name-constraints.ts'
import { formatSubject, parseSubject } from '../../x509/subject.ts'
import { formatTime } from '../../x509/time.ts'
import type { Line } from './session.ts'

export const factLines = (facts: TbsFacts): readonly Line[] => {
  const { algorithm, bits, sha256: digest } = parsePublicKey(facts.spki)
  const { permitted = [], excluded = [] } = facts.nameConstraints ?? {}
  return [
    ['  Subject', formatSubject(facts.subject)],
    ['  Issuer', formatSubject(parseSubject(facts.issuer))],
    ['  Serial', facts.serial.toString('hex')],
    ['  Valid', `${formatTime(facts.notBefore)} to ${formatTime(facts.notAfter)}`],
    ['  Path length', facts.pathLength === undefined ? 'any' : String(facts.pathLength)],
    ...permitted.map((subtree): Line => ['  Permitted', subtreeText(subtree)]),
    ...excluded.map((subtree): Line => ['  Excluded', subtreeText(subtree)]),
    ...facts.crlUrls.map((url): Line => ['  CRL', url]),
    ...facts.issuerUrls.map((url): Line => ['  Issuer at', url]),
    ['  Signed by', facts.signatureAlgorithm.id],
    ['  Public key', `${algorithm.title}, ${bits} bits`],
    ['  SHA-256 of it', digest.toString('hex')],
  ]
}

/** Of the key that signs: how its token holds it, where it is in one. */
export const keyLines = ({ id, spki, attributes }: SigningKey): readonly Line[] => [
  ['Signing key', `${id}, SHA-256 ${hash('sha256', spki)}`],
  ...(attributes === undefined
    ? []
    : [
        [
          'Held',
          Object.entries(attributes)
            .map(([name, value]) => `${name} ${value === null ? 'not told' : value}`)
            .join(', '),
        ] as const,
      ]),
]

export const crlLines = ({ number, thisUpdate, nextUpdate, revoked }: RootCrlInput): readonly Line[] => [
  ['Number', String(number)],
  ['This update', formatTime(thisUpdate)],
  ['Next update', formatTime(nextUpdate)],
  ['Revoked', String(revoked.length)],
  ...revoked.map(
    ({ serial, revokedAt, reason, invalidSince }): Line => [
      `  ${serial.toString('hex')}`,
      `${formatTime(revokedAt)}, ${reason}${invalidSince ? `, invalid since ${formatTime(invalidSince)}` : ''}`,
    ],
  ),
]

const subtreeText = (subtree: Subtree): string => `${subtree.kind} ${formatSubtree(subtree) || '(every name)'}`
