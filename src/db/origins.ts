/** On whose behalf a certificate was asked for, as it is kept. */
import { canonicalJson } from '../lib/canonical-json.ts'
import type { Origin } from '../policy/origin.ts'

/** As it stands in the tables and on the roll (RFC 8785). */
export const originText = (origin: Origin): string => canonicalJson(origin)

/** What `originText` wrote. */
export const readStoredOrigin = (text: string | null): Origin | null =>
  text === null ? null : (JSON.parse(text) as Origin)

/** The one on whose behalf a key is owned; '' where its principal owns it for itself. */
export const keyOwnerOf = (origin: Origin | undefined): string => {
  if (origin === undefined) return ''
  return origin.namespace === undefined ? `user/${origin.user ?? ''}` : `namespace/${origin.namespace}`
}

/** What certificates are searched by. */
export const originKeys = ({ namespace, user, object }: Origin) => ({
  origin_namespace: namespace ?? null,
  origin_user: user ?? null,
  origin_object: object?.uid ?? null,
})
