/** What is deleted goes at once, or, while somebody holds it by a finalizer, stays until nobody does. */
import { type Cause, forbiddenValue, quote } from './refusal.ts'
import { same, type Tree, textAt, textsAt, treeAt } from './values.ts'

export const isDeleting = (object: Tree | undefined): boolean => textAt(object, 'metadata', 'deletionTimestamp') !== ''

export const finalizersOf = (object: Tree): readonly string[] => textsAt(object, 'metadata', 'finalizers')

/** Who holds it once it is deleted with this `propagationPolicy`, which may be empty: the garbage collector as well. */
export const holdersOf = (live: Tree, policy: string): readonly string[] => {
  if (policy === '') return finalizersOf(live)
  const others = finalizersOf(live).filter((name) => !Object.values(collectors).includes(name))
  return [...others, ...(collectors[policy] === undefined ? [] : [collectors[policy]])]
}

const collectors: Readonly<Record<string, string>> = { Foreground: 'foregroundDeletion', Orphan: 'orphan' }

/** As it is from then on; the very same where it was deleted before, and nobody holds it who did not. */
export const marked = (live: Tree, holders: readonly string[], time: string): Tree => {
  const metadata = treeAt(live, 'metadata')
  if (isDeleting(live) && same([...holders], [...finalizersOf(live)])) return live
  const { generation } = metadata
  const mark = {
    deletionTimestamp: time,
    deletionGracePeriodSeconds: 0,
    ...(typeof generation === 'number' ? { generation: generation + 1 } : {}),
  }
  return { ...live, metadata: { ...metadata, ...(isDeleting(live) ? {} : mark), finalizers: [...holders] } }
}

/** Told twice, as the server validates metadata twice. */
export const lateFinalizers = (next: Tree, live: Tree | undefined): Cause[] => {
  if (live === undefined || !isDeleting(live)) return []
  const late = finalizersOf(next).filter((name) => !finalizersOf(live).includes(name))
  if (late.length === 0) return []
  const found = `[]string{${late.map(quote).join(', ')}}`
  const cause = forbiddenValue(
    'metadata.finalizers',
    `no new finalizers can be added if the object is being deleted, found new finalizers ${found}`,
  )
  return [cause, cause]
}
