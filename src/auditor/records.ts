/**
 * `chancery roll verify --database`: all that is verified of a roll, and beside it every record that has an entry, against
 * that entry. Always from the first row on: what was right yesterday may have been altered since.
 */

import { randomInt } from 'node:crypto'

import type { EntryRow, RollRows } from '../db/log-rows.ts'
import { readStoredOrigin } from '../db/origins.ts'
import { verifyEd25519 } from '../keys/note-signatures.ts'
import { sha256 } from '../lib/sha256.ts'
import { type CertificateIssued, encodeEntry } from '../tlog/entries.ts'
import { isRollFault } from '../tlog/fault.ts'
import type { Finding } from '../tlog/findings.ts'
import { parseEntry, type RollEntry } from '../tlog/forms.ts'
import type { Subtree } from '../tlog/frontier.ts'
import { isEqual } from '../tlog/text.ts'
import { hashesPerTile } from '../tlog/tiles.ts'
import { type FedEntry, openRollVerifier } from '../tlog/verify.ts'
import { assembleCertificate } from '../x509/assemble.ts'
import type { RollCertificates } from './certificates.ts'
import { differing } from './columns.ts'
import { openComparing, type ReadEntry } from './compare.ts'
import type { Verified } from './findings.ts'
import type { RollKeys } from './keys.ts'
import type { GivenNote } from './state.ts'

export interface RecordsVerification {
  readonly rows: RollRows
  readonly certificates: Pick<RollCertificates, 'readCertificate' | 'readContents' | 'verifyCertificates'>
  readonly keys: RollKeys
  /** Signed notes that were seen. */
  readonly checkpoints: readonly GivenNote[]
  readonly tell: (finding: Finding) => void
  readonly progress: (done: number, total: number) => void
}

export const verifyRecords = async (verification: RecordsVerification): Promise<Verified> => {
  const { rows, keys, checkpoints, tell, progress } = verification
  const { readCertificate, readContents, verifyCertificates } = verification.certificates
  const head = await rows.head()
  const completed: Subtree[] = []
  const verifier = await openRollVerifier({
    ...{ readCertificate, readContents, verifyCertificates, sha256, keys, verify: verifyEd25519, checkpoints, tell },
    seed: randomInt(2 ** 32),
    completed: (subtree) => completed.push(subtree),
  })
  const comparing = openComparing(rows, tell)
  let last = ''
  for await (const page of rows.pages()) {
    const read = page.entries.map((row) => readEntry(row, tell))
    const adding = verifier.add(read.map(({ fed }) => fed))
    await comparing.page(page, read)
    await adding
    await compareSubtrees(rows, completed.splice(0), tell)
    last = page.entries.at(-1)?.time ?? last
    progress(Math.min(read.at(-1)?.index ?? 0, Number(head?.size)), Number(head?.size))
  }
  const { size, root } = await verifier.finish()
  await comparing.end(size)
  const found = { size, time: last, root: root && Buffer.from(root).toString('hex') }
  const wrong = differing(found, { ...head, root: head?.root.toString('hex') })
  // Everything before the last full tile has a stored hash of its own, which was compared.
  if (wrong.length > 0)
    tell({
      index: size,
      code: 'head.differs',
      message: `${wrong.join(', ')} of the head: ${head?.size ?? 'no'} entries`,
    })
  return { size, root: root?.toBase64() ?? null, from: 0, checkpoints: checkpoints.length }
}

const readEntry = (row: EntryRow, tell: RecordsVerification['tell']): ReadEntry & { readonly fed: FedEntry } => {
  const index = Number(row.index)
  const { octets, entry } = row.body === null ? rebuild(row, index, tell) : read(Buffer.from(row.body))
  const fed = octets === undefined ? { index, octets, leaf: row.leaf } : { index, octets, leaf: row.leaf }
  return { row, index, fed, entry }
}

interface Read {
  readonly octets: Buffer | undefined
  readonly entry: RollEntry | undefined
}

const read = (octets: Buffer): Read => {
  try {
    return { octets, entry: parseEntry(octets) }
  } catch (error) {
    if (isRollFault(error)) return { octets, entry: undefined }
    throw error
  }
}

/** An issuance's entry is put together from its intent and its outcome. */
const rebuild = (
  { serial, intent, outcome, time: at }: EntryRow,
  index: number,
  tell: RecordsVerification['tell'],
): Read => {
  const missing = [...(intent ? [] : ['intents']), ...(outcome?.signature ? [] : ['outcomes'])]
  for (const table of missing)
    tell({ index, code: 'row.missing', message: `${table} has nothing of the serial ${serial}` })
  if (!intent || !outcome?.signature || serial === null) return { octets: undefined, entry: undefined }
  try {
    const certificate = assembleCertificate(intent.tbs, outcome.signature).toString('base64')
    const { issuer, principal, profile, profile_version: version, digest, plan, replaces, approval, origin } = intent
    const event: CertificateIssued = {
      ...{
        type: 'certificate.issued',
        serial,
        certificate,
        issuer,
        principal,
        request: digest,
        plan,
        replaces,
        approval,
      },
      profile: { name: profile, version: Number(version) },
      origin: readStoredOrigin(origin),
    }
    const time = new Date(at.replace(' ', 'T').replace('+00', 'Z'))
    // Whether it has the form of one is for the verifier, who reads the octets.
    return { octets: Buffer.from(encodeEntry(event, time)), entry: { ...event, v: 1, time: time.toISOString() } }
  } catch (error) {
    tell({ index, code: 'row.differs', message: `intents, outcomes: ${(error as Error).message}` })
    return { octets: undefined, entry: undefined }
  }
}

/** The roots of full tiles, as each became complete. */
const compareSubtrees = async (
  rows: RollRows,
  completed: readonly Subtree[],
  tell: RecordsVerification['tell'],
): Promise<void> => {
  const stored = new Map((await rows.subtrees(completed)).map(({ level, index, hash }) => [`${level}/${index}`, hash]))
  for (const { level, index, hash } of completed) {
    const found = stored.get(`${level}/${index}`)
    if (found && isEqual(found, hash)) continue
    const each = hashesPerTile ** level
    tell({
      ...{ index: index * each, until: (index + 1) * each },
      ...(found
        ? { code: 'tile.hash', message: `subtree ${index} of level ${level} is not what these entries give` }
        : { code: 'tile.missing', message: `subtree ${index} of level ${level} is not there` }),
    })
  }
}
