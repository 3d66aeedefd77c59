import { responderProfilePrefix } from '../policy/faults.ts'

/** What the service is in its own records: who asks for its HTTPS certificate, and by which profile and authority. */
export const own = {
  principal: 'chancery',
  profile: 'chancery-api',
  responderProfile: responderProfilePrefix,
  authority: 'default',
} as const

/** There is one for each set of names that replicas are configured with. */
export const isOwnProfile = (name: string): boolean =>
  [own.profile, own.responderProfile].some((prefix) => name.startsWith(`${prefix}-`))
