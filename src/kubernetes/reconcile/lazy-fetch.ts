/**
 * Requests that are too long to be held by the thousand. Whoever may make them may make many, and each may be padded to what
 * Chancery would read: of a long one whose it is is kept, and the rest is read where it is looked at.
 */
import { isApiFault, type KubernetesApi } from '../api/client.ts'
import type { KubernetesObject } from '../api/objects.ts'
import { pathOf, type Resource } from '../api/resources.ts'

/** Stands for `spec.request` where the spec is not kept; no base64. */
const unread = '?'

type Asking = KubernetesObject & { readonly spec: { readonly request: string } }

/** The spec as it is kept: whole, or with nothing but `reference` in it. */
export const keepShort = <S extends { readonly request: string }>(
  whole: S,
  reference: Omit<S, 'request'> & Partial<S>,
): S => (JSON.stringify(whole).length <= mostKept ? whole : ({ ...reference, request: unread } as S))

export interface Reading<T> {
  readonly api: Pick<KubernetesApi, 'call'>
  readonly resource: Resource
  /** What is looked at of an object that was read. */
  readonly wholeOf: (fresh: T) => T
  readonly signal: AbortSignal
}

/** All that is looked at of it. Undefined where it is gone, which the watch tells as well. Rejects with an `ApiFault`. */
export const readLong = async <T extends Asking>(
  kept: T,
  { api, resource, wholeOf, signal }: Reading<T>,
): Promise<T | undefined> => {
  if (kept.spec.request !== unread) return kept
  const { namespace, name, uid } = kept.metadata
  const fresh = await api.call<T>('GET', pathOf(resource, { namespace, name }), { signal }).catch((error: unknown) => {
    if (!isApiFault(error, 404)) throw error
    return undefined
  })
  if (fresh === undefined || fresh.metadata.uid !== uid) return undefined
  return wholeOf({ ...fresh, apiVersion: kept.apiVersion, kind: kept.kind })
}

/** Characters of JSON. A request for an RSA key of 4096 bits and a dozen names has 3,500, with who asks for it. */
const mostKept = 6_000
