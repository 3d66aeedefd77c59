/** Limits that a grant may set, in one table: by name, what each counts and how large its number may be. */
export const limitBounds = {
  certificatesPerDay: { most: 1_000_000_000, counts: 'certificates a day (UTC) of the profiles of the grant' },
  namesPerDay: { most: 1_000_000_000, counts: 'names a day (UTC) in those certificates' },
  certificatesAlive: { most: 1_000_000, counts: 'certificates at a time that are neither expired nor revoked' },
  requestsPerSecond: { most: 1_000_000, counts: 'requests a second of the principal; an item of a batch is one' },
  concurrent: { most: 100_000, counts: 'requests of the principal under way at a time' },
} as const satisfies Readonly<Record<string, { readonly most: number; readonly counts: string }>>

export type LimitName = keyof typeof limitBounds
export type Limits = { readonly [N in LimitName]?: number }

export const limitNames = Object.keys(limitBounds) as readonly LimitName[]
