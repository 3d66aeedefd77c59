/** Create, update, patch, apply and delete: the moments of a write in the order in which the API server has them. */
import { parse as parseYaml } from 'yaml'

import { finalizersOf, holdersOf, isDeleting, lateFinalizers, marked } from './deletions.ts'
import { isUnchanged, manageApply, manageUpdate, type Writing } from './managers.ts'
import { applyType, patched, patchTypeOf } from './patches.ts'
import {
  alreadyExists,
  badRequest,
  failure,
  gone,
  internal,
  invalid,
  invalidValue,
  notFound,
  quote,
  required,
  stale,
  unexpected,
  unmet,
} from './refusal.ts'
import { apiVersionOf, type Context, type Decoded, Malformed, named, type Resource } from './resource.ts'
import { isTree, nameOf, namespaceOf, same, type Tree, textAt, textsAt, treeAt, treesAt, uidOf } from './values.ts'

export interface Chance {
  readonly uid: () => string
  /** Five letters after a generated name. */
  readonly suffix: () => string
}

export interface Target {
  readonly resource: Resource
  readonly namespace: string
  readonly name: string
  readonly query: URLSearchParams
  /** Who writes, as managed fields name it. */
  readonly manager: string
  readonly contentType: string
  readonly body: Buffer
  readonly context: Context
  readonly chance: Chance
}

export interface Written {
  readonly object: Tree
  readonly status: number
  readonly changed: boolean
  readonly warnings: readonly string[]
}

export const create = (target: Target): Written => {
  const { resource, context } = target
  const body = parseBody(target)
  checkNamespace(body, target)
  if (context.subresource !== '') return { object: ask(body, target), status: 201, changed: false, warnings: [] }
  const { object: sent, unknown } = decodeBody(body, target)
  if (resource.rules.answer !== undefined)
    return { object: answer(sent, target), status: 201, changed: false, warnings: [] }
  const placed = place(sent, target)
  if (resource.namespaced && context.store.find('namespaces', '', target.namespace) === undefined)
    throw notFound({ group: '', kind: 'namespaces', name: target.namespace })
  const owned = manageUpdate(emptyOf(resource), placed, writingOf(target, 'Update'), true)
  return { ...finish(owned, undefined, target), warnings: unknown }
}

export const update = (target: Target): Written => {
  const body = parseBody(target)
  checkNamespace(body, target)
  const live = liveOf(target, uidOf(body))
  const said = nameOf(body)
  if (said !== '' && said !== target.name)
    throw badRequest(`the name of the object (${said}) does not match the name on the URL (${target.name})`)
  const { object: next, unknown } = decodeBody(body, target)
  const version = textAt(body, 'metadata', 'resourceVersion')
  if (version === '') {
    const detail = 'must be specified for an update'
    throw invalid(named(target.resource, target.name), [invalidValue('metadata.resourceVersion', '0', detail)])
  }
  checkVersion(version, live, target)
  return { ...change(next, live, target), warnings: unknown }
}

export const patch = (target: Target): Written => {
  const { contentType, resource } = target
  const type = patchTypeOf(contentType, resource)
  if (type === applyType) return apply(target)
  const live = liveOf(target)
  const wanted = patched(live, parseBody(target), type, resource)
  const version = textAt(wanted, 'metadata', 'resourceVersion')
  if (version !== '') checkVersion(version, live, target)
  const { object: next, unknown } = decodeBody({ ...wanted, metadata: identified(wanted, live) }, target)
  return { ...change(next, live, target), warnings: unknown }
}

/** A patch cannot make another object of it: what identifies it is ignored. */
const identified = (patched: Tree, live: Tree): Tree => {
  const { uid, creationTimestamp, name } = treeAt(live, 'metadata')
  return {
    ...treeAt(patched, 'metadata'),
    ...(uid === undefined ? {} : { uid }),
    ...(creationTimestamp === undefined ? {} : { creationTimestamp }),
    ...(name === undefined ? {} : { name }),
  }
}

const apply = (target: Target): Written => {
  const { resource, query, context } = target
  const body = parseBody(target)
  if (!query.has('fieldManager'))
    throw invalid({ group: 'meta.k8s.io', kind: 'PatchOptions' }, [
      required('fieldManager', 'is required for apply patch'),
    ])
  const live = context.store.find(resource.storage, target.namespace, target.name)
  if (live === undefined && context.subresource !== '') throw notFound(named(resource, target.name))
  const version = textAt(body, 'metadata', 'resourceVersion')
  if (live !== undefined && version !== '') checkVersion(version, live, target)
  if (treeAt(body, 'metadata')['managedFields'] !== undefined) throw badRequest('metadata.managedFields must be nil')
  const undeclared = resource.native ? undefined : resource.rules.decode?.(body).unknown[0]
  if (undeclared !== undefined) {
    const said = `${target.namespace}/${target.name}; ${apiVersionOf(resource)}, Kind=${resource.kind}`
    throw unexpected(`failed to create typed patch object (${said}): .${undeclared}: field not declared in schema`)
  }
  const { kind: _, apiVersion: __, ...applied } = body
  const base = live ?? emptyOf(resource)
  const merged = manageApply(base, applied, writingOf(target, 'Apply'), query.get('force') === 'true')
  const { object: next } = decodeApplied(merged, target)
  if (live === undefined) return { ...finish(place(next, target), undefined, target), warnings: [] }
  return { ...finish({ ...next, metadata: settled(next, live) }, live, target), warnings: [] }
}

export const remove = (target: Target): Written => {
  const { resource, context, query } = target
  const live = liveOf(target)
  const options = target.body.length === 0 ? {} : parseBody(target)
  checkPreconditions(treeAt(options, 'preconditions'), live, target)
  const isDry = query.get('dryRun') === 'All'
  const policy = query.get('propagationPolicy') ?? textAt(options, 'propagationPolicy')
  const holders = holdersOf(live, policy)
  if (holders.length > 0) {
    const next = marked(live, holders, timeOf(context.now))
    const changed = next !== live && !isDry
    return { object: changed ? context.store.write(resource.storage, next) : next, status: 200, changed, warnings: [] }
  }
  if (!isDry) context.store.remove(resource.storage, live)
  return {
    object: {
      kind: 'Status',
      apiVersion: 'v1',
      metadata: {},
      status: 'Success',
      details: {
        name: target.name,
        ...(resource.group === '' ? {} : { group: resource.group }),
        kind: resource.plural,
        uid: uidOf(live),
      },
    },
    status: 200,
    changed: !isDry,
    warnings: [],
  }
}

const checkPreconditions = (wanted: Tree, live: Tree, { resource, name }: Target): void => {
  const parts = [
    ['uid', 'UID', 'deleted and then recreated'],
    ['resourceVersion', 'ResourceVersion', 'modified'],
  ] as const
  for (const [part, title, fate] of parts) {
    const [said, is] = [textAt(wanted, part), textAt(live, 'metadata', part)]
    if (said === '' || said === is) continue
    const why = `the ${title} in the precondition (${said}) does not match the ${title} in record (${is}). The object might have been ${fate}`
    throw unmet({ ...resource.invalidAs, name }, why)
  }
}

const change = (next: Tree, live: Tree, target: Target): Omit<Written, 'warnings'> => {
  const { kind: _, apiVersion: __, ...bare } = next
  const settledNext = { ...bare, metadata: settled(bare, live) }
  return finish(manageUpdate(live, settledNext, writingOf(target, 'Update'), false), live, target)
}

/** What an update cannot change of the metadata. */
const settled = (next: Tree, live: Tree): Tree => {
  const metadata = { ...treeAt(next, 'metadata') }
  for (const name of [
    'uid',
    'creationTimestamp',
    'generation',
    'resourceVersion',
    'generateName',
    'namespace',
    'name',
    'deletionTimestamp',
    'deletionGracePeriodSeconds',
  ]) {
    delete metadata[name]
    const value = treeAt(live, 'metadata')[name]
    if (value !== undefined) metadata[name] = value
  }
  return metadata
}

/** Admission, the strategy of the kind, validation, admission again, and the store if something changed. */
const finish = (owned: Tree, live: Tree | undefined, target: Target): Omit<Written, 'warnings'> => {
  const { resource, context, chance } = target
  const { admit, prepare, validate, review } = resource.rules
  const admitted = admit?.(owned, live, context) ?? owned
  const prepared = prepare?.(admitted, live, context) ?? admitted
  const next = live === undefined ? born(prepared, target, chance) : grown(prepared, live, resource)
  const causes = [...lateFinalizers(next, live), ...(validate?.(next, live, context) ?? [])]
  if (causes.length > 0) throw invalid({ ...resource.invalidAs, name: nameOf(next) }, causes)
  if (live === undefined && context.store.find(resource.storage, target.namespace, nameOf(next)) !== undefined)
    throw alreadyExists(named(resource, nameOf(next)))
  review?.(next, live, context)
  callWebhooks(target)
  if (live !== undefined && isUnchanged(next, live)) return { object: live, status: 200, changed: false }
  if (target.query.get('dryRun') === 'All')
    return { object: next, status: live === undefined ? 201 : 200, changed: false }
  if (live !== undefined && isDeleting(live) && finalizersOf(next).length === 0) {
    // Nobody holds it any more. Watches are told of what it was, and the answer has no version of its own.
    context.store.remove(resource.storage, live)
    return { object: next, status: 200, changed: true }
  }
  const stored = context.store.write(resource.storage, next)
  return { object: stored, status: live === undefined ? 201 : 200, changed: true }
}

const place = (sent: Tree, { namespace, resource }: Target): Tree => {
  const { kind: _, apiVersion: __, ...bare } = sent
  const metadata = { ...treeAt(bare, 'metadata') }
  for (const name of newborn) delete metadata[name]
  return { ...bare, metadata: { ...metadata, ...(resource.namespaced ? { namespace } : {}) } }
}

/** Of what is made, the server alone says these. */
const newborn = [
  'uid',
  'resourceVersion',
  'creationTimestamp',
  'generation',
  'selfLink',
  'deletionTimestamp',
  'deletionGracePeriodSeconds',
]

const born = (next: Tree, { resource, context }: Target, chance: Chance): Tree => {
  const metadata = treeAt(next, 'metadata')
  const generated = textAt(metadata, 'generateName')
  return {
    ...next,
    metadata: {
      ...metadata,
      name: textAt(metadata, 'name') || `${generated}${chance.suffix()}`,
      uid: chance.uid(),
      creationTimestamp: timeOf(context.now),
      ...(resource.generation ? { generation: 1 } : {}),
    },
  }
}

const grown = (next: Tree, live: Tree, { generation, native }: Resource): Tree => {
  if (!generation) return next
  const content = ({ metadata: _, status: __, ...rest }: Tree): Tree => rest
  const before = treeAt(live, 'metadata')['generation']
  const isSame = same(native ? next['spec'] : content(next), native ? live['spec'] : content(live))
  return isSame || typeof before !== 'number'
    ? next
    : { ...next, metadata: { ...treeAt(next, 'metadata'), generation: before + 1 } }
}

const ask = (body: Tree, target: Target): Tree => {
  const { resource, context } = target
  if (resource.rules.ask === undefined) throw methodNotAllowed()
  return resource.rules.ask(body, liveOf(target), context)
}

export const methodNotAllowed = (): Error =>
  failure(405, 'MethodNotAllowed', 'the server does not allow this method on the requested resource')

const answer = (sent: Tree, target: Target): Tree => {
  const { resource, context } = target
  const { kind: _, apiVersion: __, ...bare } = sent
  const asked = { ...bare, metadata: treeAt(bare, 'metadata') }
  const answered = resource.rules.answer?.(asked, context) ?? asked
  const { metadata } = manageUpdate(emptyOf(resource), asked, writingOf(target, 'Update'), true)
  return { ...answered, metadata: metadata ?? {} }
}

/** What an object of the kind is before anything is in it: for built-in ones a struct with its empty parts. */
const emptyOf = ({ native, rules }: Resource): Tree => (native ? (rules.decode?.({}).object ?? {}) : {})

const writingOf = ({ resource, context, manager }: Target, operation: 'Apply' | 'Update'): Writing => ({
  shape: resource.shape,
  reset: resource.reset[context.subresource] ?? [],
  empty: emptyOf(resource),
  manager: { name: manager, operation, apiVersion: apiVersionOf(resource), subresource: context.subresource },
  now: timeOf(context.now),
})

/** A uid that an update sends is a precondition, and one that is gone has none. */
const liveOf = ({ resource, context, namespace, name }: Target, uid = ''): Tree => {
  const live = context.store.find(resource.storage, namespace, name)
  if (live !== undefined) return live
  if (uid === '') throw notFound(named(resource, name))
  throw gone(named(resource, name), { key: `${resource.storage}/${namespace}/${name}`, uid })
}

const checkVersion = (version: string, live: Tree, { resource, name }: Target): void => {
  if (version !== textAt(live, 'metadata', 'resourceVersion')) throw stale(named(resource, name))
}

const checkNamespace = (body: Tree, { namespace, resource }: Target): void => {
  const said = namespaceOf(body)
  if (resource.namespaced && said !== '' && said !== namespace)
    throw badRequest('the namespace of the provided object does not match the namespace sent on the request')
}

const parseBody = ({ body, contentType }: Target): Tree => {
  const text = body.toString()
  try {
    const parsed: unknown = contentType.includes('yaml') && !text.startsWith('{') ? parseYaml(text) : JSON.parse(text)
    if (isTree(parsed) || Array.isArray(parsed)) return parsed as Tree
  } catch {
    // Told below, as for what parses and is no object.
  }
  throw badRequest('the object provided is unrecognized (must be of type object)')
}

const decodeBody = (body: Tree, target: Target): Decoded => {
  const { resource, query } = target
  const title = `${resource.kind} in version ${quote(resource.version)} cannot be handled as a ${resource.kind}`
  const decoded = decode(body, target, (why) => badRequest(`${title}: ${why}`))
  if (query.get('fieldValidation') !== 'Strict' || decoded.unknown.length === 0) return decoded
  const fields = decoded.unknown.map((field) => `unknown field ${quote(field)}`)
  throw badRequest(`${title}: strict decoding error: ${fields.join(', ')}`)
}

/** A fault in what was applied is found too late for the server to know that it is the client's. */
const decodeApplied = (merged: Tree, target: Target): Decoded => {
  const { resource, namespace, name } = target
  const type = `${apiVersionOf(resource)}, Kind=${resource.kind}`
  return decode(merged, target, (why) =>
    unexpected(
      `failed to convert new object (${namespace}/${name}; ${type}) to proper version: unable to convert unstructured object to ${type}: error decoding from json: ${why}`,
    ),
  )
}

const decode = (object: Tree, { resource }: Target, refuse: (why: string) => Error): Decoded => {
  try {
    return resource.rules.decode?.(object) ?? { object, unknown: [] }
  } catch (error) {
    throw error instanceof Malformed ? refuse(error.message) : error
  }
}

/** A validating webhook with failurePolicy Fail whose service is not there fails every write that it is to see. */
const callWebhooks = ({ resource, context }: Target): void => {
  const wanted = context.subresource === '' ? resource.plural : `${resource.plural}/${context.subresource}`
  for (const configuration of context.store.all('validatingwebhookconfigurations')) {
    for (const webhook of treesAt(configuration, 'webhooks')) {
      const sees = treesAt(webhook, 'rules').some(
        (rule) => textsAt(rule, 'apiGroups').includes(resource.group) && textsAt(rule, 'resources').includes(wanted),
      )
      const { namespace = '', name = '', path = '' } = treeAt(webhook, 'clientConfig', 'service')
      if (!sees || webhook['failurePolicy'] === 'Ignore') continue
      if (context.store.find('services', String(namespace), String(name)) !== undefined) continue
      const url = `https://${name}.${namespace}.svc:443${path}?timeout=${Number(webhook['timeoutSeconds'] ?? 10)}s`
      const title = quote(textAt(webhook, 'name'))
      throw internal(
        `failed calling webhook ${title}: failed to call webhook: Post ${quote(url)}: service ${quote(String(name))} not found`,
      )
    }
  }
}

/** RFC 3339 in whole seconds, as all times of metadata are. */
export const timeOf = (date: Date): string => `${date.toISOString().slice(0, 19)}Z`
