/** Patches: merge (RFC 7386), strategic merge and JSON patch (RFC 6902). */
import { mergeApplied } from './fields.ts'
import { failure } from './refusal.ts'
import type { Resource } from './resource.ts'
import type { Shape } from './shape.ts'
import { copy, isTree, mergePatch, same, type Tree, textAt, treeAt, type Value } from './values.ts'

/** The content type of server-side apply, which is no patch of its own: its body is a configuration. */
export const applyType = 'application/apply-patch+yaml'
const strategic = 'application/strategic-merge-patch+json'
const types = ['application/json-patch+json', 'application/merge-patch+json', strategic, applyType]

/** Custom resources have no strategic merge: it needs a struct to tell how. */
export const patchTypeOf = (contentType: string, { native }: Resource): string => {
  const type = contentType.split(';')[0]?.trim() ?? ''
  const accepted = types.filter((one) => native || one !== strategic)
  if (accepted.includes(type)) return type
  throw unsupported(accepted)
}

export const patched = (live: Tree, sent: Value, type: string, { shape }: Resource): Tree =>
  patches[type]?.(live, sent, shape) ?? live

const patches: Readonly<Record<string, (live: Tree, sent: Value, shape: Shape) => Tree>> = {
  'application/merge-patch+json': (live, sent) => mergePatch(live, sent) as Tree,
  [strategic]: (live, sent, shape) => mergeApplied(live, sent, shape) as Tree,
  'application/json-patch+json': (live, sent) => {
    const document = copy(live)
    for (const step of Array.isArray(sent) ? sent : []) jsonPatchStep(document, treeAt(step))
    return document
  },
}

const jsonPatchStep = (document: Tree, step: Tree): void => {
  const keys = textAt(step, 'path')
    .split('/')
    .slice(1)
    .map((key) => key.replaceAll('~1', '/').replaceAll('~0', '~'))
  const last = keys.pop() ?? ''
  let holder: Value | undefined = document
  for (const key of keys) holder = Array.isArray(holder) ? holder[Number(key)] : treeAt(holder)[key]
  const op = textAt(step, 'op')
  const value = step['value'] ?? null
  if (Array.isArray(holder)) {
    const index = last === '-' ? holder.length : Number(last)
    if (op === 'test' && !same(holder[index], value)) throw cannotPatch()
    if (op === 'add') holder.splice(index, 0, value)
    if (op === 'replace') holder[index] = value
    if (op === 'remove') holder.splice(index, 1)
    return
  }
  if (!isTree(holder) || (op === 'test' && !same(holder[last], value))) throw cannotPatch()
  if (op === 'add' || op === 'replace') holder[last] = value
  if (op === 'remove') delete holder[last]
}

const cannotPatch = (): Error =>
  failure(422, 'Invalid', 'the server rejected our request due to an error in our request', { details: {} })

const unsupported = (accepted: readonly string[]): Error =>
  failure(
    415,
    'UnsupportedMediaType',
    `the body of the request was in an unknown format - accepted media types include: ${accepted.join(', ')}`,
  )
