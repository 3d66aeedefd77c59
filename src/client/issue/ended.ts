/** What became of each of many requests: on the disk, for machines, and for people. */
import { dirname } from 'node:path'

import { isProblem } from '../../errors.ts'
import { Failure, type FailureKind } from '../../lib/failure.ts'
import { syncFolder } from '../../lib/fs.ts'
import { formatTable } from '../../lib/output.ts'
import { countText } from '../../lib/progress.ts'
import { Awaited } from './approval.ts'
import { chainText } from './chain-file.ts'
import { assertFor } from './for-request.ts'
import type { IssuedAnswer } from './issued.ts'
import { replaceFile } from './replace.ts'
import type { RequestFile } from './requests.ts'

/** For machines: every member is always there. */
export interface Row {
  /** As the command line names it. */
  readonly file: string
  readonly outcome: keyof typeof outcomes
  /** Where its chain is. */
  readonly out: string | null
  /** Also of a certificate that could not be written. */
  readonly serial: string | null
  /** RFC 3339. */
  readonly notAfter: string | null
  /** It had been issued before, under the same key. */
  readonly replayed: boolean
  readonly notes: IssuedAnswer['notes']
  /** What waits for approval. */
  readonly request: string | null
  /** The service's, or in its place what is known here. */
  readonly problem: object | null
}

export interface Ended {
  readonly row: Row
  /** How a command for this one alone would have ended; undefined where it is done. */
  readonly kind?: FailureKind
}

/** Writes the chain, whole, where it is one for this request. */
export const issuedOrNot = async (request: RequestFile, told: IssuedAnswer | Failure): Promise<Ended> => {
  if (told instanceof Failure) return endedBy(request, told)
  const { serial, notAfter, notes } = told
  const row = { serial, notAfter, notes, replayed: told.replayed === true }
  try {
    assertFor(request, told)
    await write(request.out, chainText(told))
    return { row: { ...rowOf(request, 'issued'), ...row, out: request.out } }
  } catch (error) {
    const { row: failed, kind } = endedBy(request, failureFor(error))
    return { row: { ...failed, ...row }, ...(kind && { kind }) }
  }
}

/** One whose call came to nothing, for this reason, though it may have been issued; or was not made any more. */
export const withoutAnswer = (request: RequestFile, failure?: Failure, mayBeIssued = false): Ended => {
  if (failure === undefined) return { row: rowOf(request, 'unsent'), kind: 'later' }
  if (!mayBeIssued) return endedBy(request, failure)
  return { row: { ...rowOf(request, 'unknown'), problem: failure.toJSON() }, kind: failure.kind }
}

export const rowText = (ended: readonly Ended[]): string =>
  formatTable(
    ended.map(({ row }) => {
      const { code, detail } = (row.problem ?? {}) as { readonly code?: string; readonly detail?: string }
      const said = row.outcome === 'issued' ? issuedText(row) : row.outcome === 'unknown' ? 'no answer came' : detail
      return { file: row.file, outcome: row.outcome, serialOrCode: row.serial ?? code, detail: said }
    }),
    ['file', 'outcome', 'serialOrCode', 'detail'],
  )

/** How it went, in lines. */
export const sumText = (ended: readonly Ended[], broken: Failure | undefined): readonly string[] => {
  const counts = Object.entries(outcomes).map(([outcome, words]) => {
    const count = ended.filter(({ row }) => row.outcome === outcome).length
    return { outcome, count, words: `${countText(count)} ${words}` }
  })
  const unknown = counts.find(({ outcome }) => outcome === 'unknown')?.count ?? 0
  const parts = counts.filter(({ count }) => count > 0).map(({ words }) => words)
  return [
    `${countText(ended.length)} request${ended.length === 1 ? '' : 's'}: ${parts.join(', ')}.`,
    ...(broken ? [broken.message] : []),
    ...(unknown > 0
      ? [
          `Nothing is known of the ${countText(unknown)} that were sent with the call that broke: they may have been issued.`,
        ]
      : []),
  ]
}

const issuedText = ({ notAfter, out, replayed }: Row): string =>
  `valid until ${notAfter}, in ${out}${replayed ? ', issued before' : ''}`

const endedBy = (request: RequestFile, failure: Failure): Ended => {
  const { kind } = failure
  const problem = failure.toJSON()
  if (failure instanceof Awaited)
    return { row: { ...rowOf(request, 'waiting'), request: failure.request.id, problem }, kind }
  return { row: { ...rowOf(request, ofKind[kind] ?? 'refused'), problem }, kind }
}

const rowOf = ({ file }: RequestFile, outcome: Row['outcome']): Row => ({
  ...{ file, outcome, out: null, serial: null, notAfter: null },
  ...{ replayed: false, notes: [], request: null, problem: null },
})

const ofKind: Partial<Record<FailureKind, Row['outcome']>> = { later: 'later', failed: 'failed', usage: 'failed' }

/** It lasts when it resolves. */
const write = async (file: string, text: string): Promise<void> => {
  try {
    await replaceFile(file, text)
    await syncFolder(dirname(file))
  } catch (error) {
    throw new Failure('usage', `${file} cannot be written (${(error as NodeJS.ErrnoException).code}).`)
  }
}

/** A request that only the server can read is not known to be the one that it answers for. */
const failureFor = (error: unknown): Failure => {
  if (error instanceof Failure) return error
  if (isProblem(error))
    return new Failure('failed', `The certificate cannot be compared with its request: ${error.detail}`)
  throw error
}

/** In the order in which they are summed up. */
const outcomes = {
  issued: 'issued',
  waiting: 'waiting for approval',
  later: 'to be tried again',
  unknown: 'of which nothing is known',
  unsent: 'not sent',
  refused: 'refused',
  failed: 'failed',
} as const
