/** What a verifier of a roll can find, in one table: code → what it means. docs/roll.md is tested against it both ways. */
import { type FaultCode, faults } from './fault.ts'

export const findings = {
  'approval.approver':
    'Somebody has decided about a request who may not: without a grant to approve its profile, about the own one, or twice.',
  'approval.missing':
    'A certificate was issued without the approvals that its profile wants, or its asker was gone by then.',
  'approval.plan':
    'What was put before people does not have the digest that they approved, or the certificate is not what they approved.',
  'approval.required': 'A request was to be approved by other than as many as its profile wants.',
  'approval.time': 'A request was approved or issued after its time was over, or has expired before that.',
  'entry.form': faults['entry.form'],
  'entry.leaf': 'An entry does not have the leaf that is stored for it.',
  'entry.missing': 'Nothing but its leaf is there of an entry: what it said is missing.',
  'entry.order': 'An entry is not the next one: those before it are missing, or it came before.',
  'entry.size': 'An entry is longer than 65,535 octets.',
  'entry.text': faults['entry.text'],
  'entry.time': 'An entry is older than the one before it.',
  'entry.type': faults['entry.type'],
  'certificate.issuer': 'A certificate does not name its issuer as that is named in its own.',
  'certificate.serial': 'A certificate has another serial than its entry says.',
  'certificate.signature': "A certificate's signature is not by its issuer.",
  'certificate.text': 'What an entry has as a certificate is none.',
  'certificate.validity': 'A certificate outlives its issuer.',
  'checkpoint.beyond': 'A checkpoint was signed over more entries than there are.',
  'checkpoint.invalid': 'A checkpoint cannot be read, or the key of the roll did not sign it.',
  'checkpoint.passed':
    'A checkpoint is of a size before the one from which this verification went on: verify from the start.',
  'checkpoint.root': 'A checkpoint has another root than the entries give.',
  'reference.key': 'The digest of a key or a certificate is not that of the issuer it is said to be of.',
  'reference.missing': 'An entry refers to something of which no earlier entry told.',
  'reference.number': 'A number does not follow from the earlier entries.',
  'reference.state': 'An earlier entry has ended what this one goes on with, or begun what it begins.',
  'serial.again': 'A serial was used twice.',
} as const satisfies Readonly<Record<string, string>>

/** What whoever reads the entries from tiles or from records can find beside them. */
export const storageFindings = {
  'bundle.octets': faults['bundle.octets'],
  'tile.hash': 'A stored hash of the tree is not the one that the entries give.',
  'tile.missing': 'A tile, a bundle of entries or a hash of the tree is missing.',
  'tile.octets': faults['tile.octets'],
  'head.differs': 'The head of the records is not the size, the root and the time that the entries give.',
  'row.differs': 'A record is not what its entry says.',
  'row.extra': 'There is a record of which no entry tells.',
  'row.missing': 'A record of which an entry tells is missing.',
} as const satisfies Readonly<Record<string, string>>

export type FindingCode = keyof typeof findings
export type StorageFindingCode = keyof typeof storageFindings

export interface Finding {
  /** Of the entry; for a checkpoint its size, 0 where it has none. */
  readonly index: number
  /** Where it may be any of several entries: the one behind the last of them. */
  readonly until?: number
  readonly code: FindingCode | StorageFindingCode
  readonly message: string
}

/** The codes of findings that reading an entry can end with. */
export const isFindingCode = (code: FaultCode | FindingCode): code is FindingCode => Object.hasOwn(findings, code)
