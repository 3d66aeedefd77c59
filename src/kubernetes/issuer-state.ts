/** What the status of an issuer says, as those who would ask through it read it. */
import { conditionOf, type Issuer } from './objects.ts'

export type IssuerState = 'ready' | 'not-ready' | 'unchecked'

/** Convention 12: what was said of an older spec says nothing of this one. */
export const issuerState = (issuer: Issuer): IssuerState => {
  const ready = conditionOf(issuer, 'Ready')
  if (ready === undefined || (ready.observedGeneration ?? 0) < (issuer.metadata.generation ?? 0)) return 'unchecked'
  if (ready.status === 'Unknown') return 'unchecked'
  return ready.status === 'True' ? 'ready' : 'not-ready'
}
