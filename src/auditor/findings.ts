/** Findings as they are told: as they come, and in the end. */

import { Failure } from '../lib/failure.ts'
import { type Output, visible } from '../lib/output.ts'
import { countText } from '../lib/progress.ts'
import type { Finding } from '../tlog/findings.ts'

export interface Report {
  readonly tell: (finding: Finding) => void
  /** As many as are kept, by entry. */
  readonly findings: () => readonly Finding[]
  readonly count: () => number
}

/** A roll that is not one has more than anybody reads: the first ones are kept, and all are counted. */
export const openReport = (told: (finding: Finding) => void = () => {}): Report => {
  const kept: Finding[] = []
  let count = 0
  return {
    tell: (finding) => {
      count += 1
      if (kept.length >= most) return
      kept.push(finding)
      told(finding)
    },
    findings: () => kept.toSorted((a, b) => a.index - b.index),
    count: () => count,
  }
}

export interface Verified {
  readonly size: number
  /** Base64; null where entries are missing. */
  readonly root: string | null
  /** From where on this time. */
  readonly from: number
  /** Against how many signed checkpoints. */
  readonly checkpoints: number
  /** Of the newest checkpoint of the source: each whose key was given, and when it cosigned it; null: it has not. */
  readonly witnesses?: readonly { readonly name: string; readonly time: string | null }[]
}

/** Ends with exit code 3 when there is a finding. */
export const showReport = (out: Output, verified: Verified, report: Report): void => {
  const findings = report.findings()
  const count = report.count()
  const { size, root, from, checkpoints, witnesses = [] } = verified
  out.show(
    { ...verified, found: count, findings },
    [
      ...findings.map(findingText),
      ...(count > findings.length ? [`… and ${countText(count - findings.length)} more`] : []),
      `${countText(size)} entries${from > 0 ? `, from ${countText(from)} on` : ''}, ${checkpoints === 1 ? '1 checkpoint' : `${countText(checkpoints)} checkpoints`}: ${count === 0 ? 'nothing found' : `${countText(count)} found`}.`,
      `root ${root ?? 'unknown'}`,
      ...(findings.some(({ code }) => code === 'entry.type')
        ? [
            'An entry of a type or version that is not known here may be of a newer Chancery: verify with the version that wrote it. What other findings miss may be in such entries.',
          ]
        : []),
      ...witnesses.map(({ name, time }) =>
        visible(time === null ? `not cosigned by ${name}, who may see another roll` : `cosigned by ${name} at ${time}`),
      ),
      ...(checkpoints === 0
        ? ['Nothing signed was compared: whoever may write there could have made all of it anew.']
        : []),
    ].join('\n'),
  )
  if (count > 0) throw new Failure('refused', '')
}

/** `entry 17 entry.leaf: …`. */
export const findingText = ({ index, until = index + 1, code, message }: Finding): string => {
  const place = /^(checkpoint|head)\./.test(code)
    ? `at ${index}`
    : until - index === 1
      ? `entry ${index}`
      : `entries ${index} to ${until - 1}`
  return visible(`${place} ${code}: ${message}`)
}

const most = 1_000
