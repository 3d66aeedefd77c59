/** Limits as they are written and sent: whole numbers by name. */
import { closed, Type } from '../lib/schema.ts'
import { type LimitName, limitBounds } from './limits.ts'

const upTo = (name: LimitName) => {
  const { most: maximum, counts } = limitBounds[name]
  const description = `${counts}: a whole number from 1 to ${maximum}`
  return Type.Optional(Type.Integer({ minimum: 1, maximum, description }))
}

export const LimitsSchema = Type.Object(
  {
    certificatesPerDay: upTo('certificatesPerDay'),
    namesPerDay: upTo('namesPerDay'),
    certificatesAlive: upTo('certificatesAlive'),
    requestsPerSecond: upTo('requestsPerSecond'),
    concurrent: upTo('concurrent'),
  } satisfies Readonly<Record<LimitName, unknown>>,
  { ...closed, minProperties: 1, description: 'limits by name, at least one' },
)
