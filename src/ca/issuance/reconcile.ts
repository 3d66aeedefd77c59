/**
 * Ends what a crash left open. An intent without an outcome may have been signed: it is abandoned, which puts an event
 * on the roll and its serial on a CRL until it would have expired. Whoever inserts the outcome
 * first decides; an issuer that comes second gets `issuance.abandoned` and hands nothing out.
 */
export interface OpenIntents {
  /** Ends, in one transaction, up to `limit` intents older than `ageMs` by the database's clock. Resolves to how many. */
  abandon(ageMs: number, limit: number): Promise<number>
}

/**
 * Longer than any issuance can take, so that only the dead are ended: both deadlines and ten seconds more. That it is
 * long enough is a courtesy, not a condition: the outcome's uniqueness decides.
 */
export const patienceMs = (limits: {
  readonly signingDeadlineMs: number
  readonly requestDeadlineMs: number
}): number => limits.signingDeadlineMs + limits.requestDeadlineMs + 10_000

/** Ends all that are due; resolves to how many that were. */
export const reconcile = async (intents: OpenIntents, ageMs: number): Promise<number> => {
  let total = 0
  for (;;) {
    const ended = await intents.abandon(ageMs, sliceSize)
    total += ended
    if (ended < sliceSize) return total
  }
}

const sliceSize = 200
