/** What the cycle tells whoever measures. HTTP's metrics implement it; tests count with it. */
export type Stage =
  | 'authenticate'
  | 'replay'
  | 'read'
  | 'decide'
  | 'prepare'
  | 'possession'
  | 'intent'
  | 'sign'
  | 'check'
  | 'record'
  | 'prove'
  | 'answer'

export interface Meter {
  /** Starts a watch; each call of what it returns ends one stage and starts the next. */
  laps(): (ended: Stage) => void
  issued(profile: string): void
  refused(profile: string, code: string): void
  /** A request was told 429 for this limit. */
  limited(limit: string): void
  batch(kind: 'intent' | 'record' | 'replay' | 'refusal', size: number): void
  keyOperation(key: string, seconds: number, fault?: string): void
}
