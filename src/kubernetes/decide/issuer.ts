/** Issuers of the cluster, decided: what a look at Chancery makes of their status. Pure. */

import { type Condition, conditionOf, type Issuer } from '../api/objects.ts'
import { bounded, type Fault, needsPeople } from './outcome.ts'
import { secondsOf, type Told } from './request.ts'

export interface IssuerWrite {
  readonly status: { readonly conditions: readonly [Condition] }
  /** Where it has changed sides. */
  readonly event?: Told
}

export interface Moment {
  readonly now: Date
  /** Its status was written within the last minute: words alone that differ can wait. */
  readonly wasJustTold?: boolean
}

/** Undefined where its status says so already. */
export const decideIssuer = (
  issuer: Issuer,
  fault: Fault | undefined,
  { now, wasJustTold = false }: Moment,
): IssuerWrite | undefined => {
  const { url, profile } = issuer.spec
  const said = fault
    ? ({ status: 'False', reason: needsPeople(fault) ? 'Failed' : 'Pending', message: textOf(fault) } as const)
    : ({ status: 'True', reason: 'Checked', message: `profile ${profile} of ${url} can be asked for` } as const)
  const known = conditionOf(issuer, 'Ready')
  const observedGeneration = issuer.metadata.generation ?? 0
  const { status, reason, message } = said
  const isAlike = known?.status === status && known.reason === reason
  const isSame = isAlike && known.message === message
  // What a server says may differ at every look.
  const isTold = isSame || (isAlike && wasJustTold && fault?.kind !== 'misconfigured')
  if (isTold && known.observedGeneration === observedGeneration) return undefined
  const since = known?.status === status ? known.lastTransitionTime : undefined
  const condition: Condition = {
    type: 'Ready',
    ...said,
    observedGeneration,
    lastTransitionTime: since ?? secondsOf(now),
  }
  if (isSame) return { status: { conditions: [condition] } }
  const event: Told = { type: fault ? 'Warning' : 'Normal', reason, action: 'Check', note: message }
  return { status: { conditions: [condition] }, event }
}

/** The same for the same fault: no id of a request, no time. */
export const textOf = (fault: Fault): string =>
  bounded(
    fault.kind === 'problem' ? `${fault.problem.detail.replace(/\.$/, '')} (${fault.problem.code})` : fault.message,
    1_024,
  )
