/**
 * What each entry of a roll means for the records, in one table: so that records of an older backup come to say again what
 * the roll says. What is neither in an entry nor follows from it is told instead, to be done again by hand.
 */
import type { EventType, RollEntry } from '../tlog/forms.ts'
import { accessEffects } from './access-effects.ts'
import { certificateEffects } from './certificate-effects.ts'
import type { Queryable } from './database.ts'
import { issuerEffects } from './issuer-effects.ts'
import type { Effect, EffectsOf, RecoverySources, Todo } from './log-effect.ts'
import { requestEffects } from './request-effects.ts'

/** Puts back what an entry meant; all before it are in the records already. */
export const applyEntry = (
  tx: Queryable,
  { entry, index }: { readonly entry: RollEntry; readonly index: number },
  sources: RecoverySources,
): Promise<void> =>
  (effects[entry.type] as Effect<EventType>).apply?.(tx, entry, { index, sources }) ?? Promise.resolve()

export const todoOf = (entry: RollEntry, sources: RecoverySources): Todo | undefined =>
  (effects[entry.type] as Effect<EventType>).todo?.(entry, sources)

const effects: EffectsOf<EventType> = {
  ...certificateEffects,
  ...requestEffects,
  ...accessEffects,
  ...issuerEffects,
  // These change no records.
  'key.opened': {},
  'key.probed': {},
  'roll.opened': {},
  'database.adopted': {},
  'service.started': {},
}
