/** Limits that a grant may set, in one table: numbers by name, as they are written, sent and stored. */
import { type Static, Type } from 'typebox'

const upTo = (maximum: number, description: string) =>
  Type.Optional(
    Type.Integer({ minimum: 1, maximum, description: `${description}: a whole number from 1 to ${maximum}` }),
  )

export const LimitsSchema = Type.Object(
  {
    certificatesPerDay: upTo(1_000_000_000, 'certificates a day (UTC) of the profiles of the grant'),
    namesPerDay: upTo(1_000_000_000, 'names a day (UTC) in those certificates'),
    certificatesAlive: upTo(1_000_000, 'certificates at a time that are neither expired nor revoked'),
    requestsPerSecond: upTo(1_000_000, 'requests a second of the principal; an item of a batch is one'),
    concurrent: upTo(100_000, 'requests of the principal under way at a time'),
  },
  { additionalProperties: false, minProperties: 1, description: 'limits by name, at least one' },
)

export type Limits = Readonly<Static<typeof LimitsSchema>>
export type LimitName = keyof Limits

export const limitNames = Object.keys(LimitsSchema.properties) as readonly LimitName[]
