/** Whether this instance can issue, and why not. */
export interface HealthCheck {
  readonly name: 'database' | 'key' | 'clock' | 'crls' | 'roll' | 'queue'
  readonly ok: boolean
  readonly reason: string
}

export interface Health {
  /** At most a few seconds old, never waits for more than a second. */
  ready(): Promise<readonly HealthCheck[]>
}
