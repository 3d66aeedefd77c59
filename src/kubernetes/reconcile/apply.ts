/** Writing a status: server-side apply under one name, with the version that was decided on as its precondition. */
import { type ApiFault, isApiFault, type KubernetesApi } from '../api/client.ts'
import type { KubernetesObject } from '../api/objects.ts'
import type { Recorder } from '../api/recorder.ts'
import { pathOf, type Resource } from '../api/resources.ts'
import { bounded } from '../decide/outcome.ts'
import type { Meter } from '../metrics.ts'

export interface Applying<T extends KubernetesObject> {
  readonly resource: Resource
  /** As it was decided on. */
  readonly object: T
  readonly subresource?: 'status' | 'approval'
  readonly status: object
  /** Whether the same may be written to what the object has become meanwhile. */
  readonly holds: (fresh: T) => boolean
  readonly signal: AbortSignal
}

export type Applied<T> =
  | { readonly kind: 'written'; readonly object: T }
  /** It was deleted, or is another one of the same name. */
  | { readonly kind: 'gone' }
  /** Somebody else has written what makes ours moot. */
  | { readonly kind: 'superseded' }
  /** The object is so large that etcd does not take what is written as well. */
  | { readonly kind: 'full'; readonly fault: ApiFault }

/**
 * An apply is no update of the object that was decided on unless its version says so: by name alone, a certificate would get
 * into another request that has taken the name meanwhile, since a uid is no precondition here. Whoever has touched the object
 * otherwise makes us look again, and write the same. Rejects with an `ApiFault` for anything else.
 */
export const applyStatus = async <T extends KubernetesObject>(
  api: Pick<KubernetesApi, 'call'>,
  applying: Applying<T>,
): Promise<Applied<T>> => {
  const { resource, holds, signal } = applying
  const { namespace, name, uid } = applying.object.metadata
  let current = applying.object
  for (let attempt = 1; ; attempt += 1) {
    try {
      return { kind: 'written', object: await patch(api, applying, current) }
    } catch (error) {
      if (isApiFault(error, 404)) return { kind: 'gone' }
      if (isTooLarge(error)) return { kind: 'full', fault: error }
      if (!isApiFault(error, 409) || attempt >= mostAttempts) throw error
    }
    const fresh = await api.call<T>('GET', pathOf(resource, { namespace, name }), { signal }).catch(missing)
    if (fresh === undefined || fresh.metadata.uid !== uid) return { kind: 'gone' }
    if (!holds(fresh)) return { kind: 'superseded' }
    current = fresh
  }
}

export interface ApplyingDeps {
  readonly api: Pick<KubernetesApi, 'call'>
  readonly recorder: Recorder
  readonly meter: Meter
}

/**
 * The same, counted. Tells whoever has asked that the API server refuses the write itself (a right
 * that is missing, a certificate that it does not take, an object that is full), which no condition can say.
 */
export const applyOrTell = async <T extends KubernetesObject>(
  { api, recorder, meter }: ApplyingDeps,
  action: string,
  applying: Applying<T>,
): Promise<Applied<T>> => {
  const tell = ({ message }: ApiFault): void => {
    const note = bounded(`the API server does not take its status: ${message}`, 1_024)
    recorder.record(applying.object, { type: 'Warning', reason: 'StatusRefused', action, note })
  }
  const applied = await applyStatus(api, applying).catch((error: unknown) => {
    if (isApiFault(error, 403) || isApiFault(error, 422)) tell(error)
    throw error
  })
  meter.count('chancery_controller_writes_total', { resource: applying.resource.plural, outcome: applied.kind })
  if (applied.kind === 'full') tell(applied.fault)
  return applied
}

/** Beyond 1.5 MiB of etcd, 2 MiB of the way to it, and 3 MiB of the API server, which has no status of its own for the first two. */
const isTooLarge = (error: unknown): error is ApiFault =>
  isApiFault(error, 413) ||
  (isApiFault(error, 500) && /request is too large|message larger than max/.test(error.message))

const patch = <T extends KubernetesObject>(
  api: Pick<KubernetesApi, 'call'>,
  { resource, object, subresource = 'status', status, signal }: Applying<T>,
  { metadata: { resourceVersion } }: T,
): Promise<T> => {
  const { apiVersion, kind } = object
  const { namespace, name } = object.metadata
  const metadata = { name, ...(namespace !== undefined && { namespace }), resourceVersion }
  return api.call<T>('PATCH', pathOf(resource, { namespace, name, subresource }), {
    query: { fieldManager, force: 'true' },
    body: { apiVersion, kind, metadata, status },
    patch: 'apply',
    signal,
  })
}

const missing = (error: unknown): undefined => {
  if (!isApiFault(error, 404)) throw error
}

/** Whose fields they are; the same for every version of the controller, or an older one's would stay for ever. */
const fieldManager = 'chancery'
const mostAttempts = 5
