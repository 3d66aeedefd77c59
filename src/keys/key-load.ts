/** How busy a provider is, for the metrics. */
export interface KeyLoad {
  /** Sessions that sign at this moment. */
  readonly inUse: number
  /** Operations that wait for one. */
  readonly waiting: number
  /** Failed calls since the start, by the name of the return value. */
  readonly failures: Readonly<Record<string, number>>
}
