import { responderProfilePrefix } from '../policy/faults.ts'

/** What the service is in its own records: who asks for its HTTPS certificate, by which profile and authority, and with which key. */
export const own = {
  principal: 'chancery',
  profile: 'chancery-api',
  responderProfile: responderProfilePrefix,
  authority: 'default',
  keyType: 'ec-p256',
} as const

/** There is one for each set of names that replicas are configured with. */
export const isOwnProfile = (name: string): boolean =>
  [own.profile, own.responderProfile].some((prefix) => name.startsWith(`${prefix}-`))
