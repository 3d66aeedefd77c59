/** What the status of an issuer says, as those who would ask through it read it. */
import { conditionOf, type Issuer } from '../api/objects.ts'

/** Why nothing can be asked through it, after its name; undefined where it is ready. */
export const unready = (issuer: Issuer | undefined): string | undefined => {
  if (issuer === undefined) return 'does not exist'
  const ready = conditionOf(issuer, 'Ready')
  // Convention 12: what was said of an older spec says nothing of this one.
  const isCurrent = (ready?.observedGeneration ?? 0) >= (issuer.metadata.generation ?? 0)
  if (ready === undefined || !isCurrent || ready.status === 'Unknown') return 'has not been checked yet'
  return ready.status === 'True' ? undefined : 'is not ready'
}

export const isReady = (issuer: Issuer | undefined): issuer is Issuer => unready(issuer) === undefined
