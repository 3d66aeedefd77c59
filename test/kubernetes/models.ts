/**
 * Kubernetes' own types, as its client library has them of the published OpenAPI: which fields an object of a kind may have,
 * which it must have, and of what type each is. Strict where the API server only warns: an unknown field is a fault.
 */
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'

interface Attribute {
  readonly name: string
  /** As JSON has it. */
  readonly baseName: string
  readonly type: string
}

interface Model {
  readonly attributes: readonly Attribute[]
  readonly required: ReadonlySet<string>
}

/** What is wrong with an object, a line each; undefined where the library knows no such kind. */
export const modelFaults = async (
  apiVersion: string,
  kind: string,
  object: unknown,
): Promise<readonly string[] | undefined> => {
  const version = apiVersion.split('/').at(-1) ?? ''
  const name = `${version.charAt(0).toUpperCase()}${version.slice(1)}${kind}`
  return (await modelOf(name)) === undefined ? undefined : faultsOf(object, name, '')
}

const faultsOf = async (value: unknown, type: string, path: string): Promise<readonly string[]> => {
  const plain = plainTypes[type]
  if (plain) return plain(value) ? [] : [`${path}: ${JSON.stringify(value)} is no ${type}`]
  const item = /^Array<(.+)>$/.exec(type)?.[1]
  if (item !== undefined) {
    if (!Array.isArray(value)) return [`${path}: is no list`]
    return (await Promise.all(value.map((inner, i) => faultsOf(inner, item, `${path}[${i}]`)))).flat()
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [`${path}: is no object`]
  const values = /^\{ \[key: string\]: (.+); \}$/.exec(type)?.[1]
  const entries = Object.entries(value)
  if (values !== undefined)
    return (await Promise.all(entries.map(([key, inner]) => faultsOf(inner, values, `${path}.${key}`)))).flat()
  const model = await modelOf(type)
  if (!model) return [`${path}: nothing is known of ${type}`]
  const byName = new Map(model.attributes.map((attribute) => [attribute.baseName, attribute]))
  const below = entries.map(([key, inner]) => {
    const attribute = byName.get(key)
    return attribute ? faultsOf(inner, attribute.type, `${path}.${key}`) : [`${path}.${key}: there is no such field`]
  })
  const missing = model.attributes
    .filter(({ name, baseName }) => model.required.has(name) && !Object.hasOwn(value, baseName))
    .map(({ baseName }) => `${path}.${baseName}: is missing`)
  return [...(await Promise.all(below)).flat(), ...missing]
}

const plainTypes: Readonly<Record<string, (value: unknown) => boolean>> = {
  string: (value) => typeof value === 'string',
  number: (value) => typeof value === 'number',
  boolean: (value) => typeof value === 'boolean',
  IntOrString: (value) => typeof value === 'string' || Number.isInteger(value),
  Date: (value) => typeof value === 'string' && !Number.isNaN(Date.parse(value)),
  any: () => true,
}

const folder = join(dirname(createRequire(import.meta.url).resolve('@kubernetes/client-node')), 'gen', 'models')
const known = new Map<string, Promise<Model | undefined>>()

const modelOf = (name: string): Promise<Model | undefined> => {
  const found = known.get(name) ?? readModel(name)
  known.set(name, found)
  return found
}

/** Which are required is said by the types alone. */
const readModel = async (name: string): Promise<Model | undefined> => {
  if (!/^[A-Z]\w+$/.test(name)) return undefined
  const declared = await readFile(join(folder, `${name}.d.ts`), 'utf8').catch(() => undefined)
  if (declared === undefined) return undefined
  const { [name]: model } = await import(pathToFileURL(join(folder, `${name}.js`)).href)
  const required = [...declared.matchAll(/^ {4}'(\w+)': /gm)].map(([, field = '']) => field)
  return { attributes: model.getAttributeTypeMap(), required: new Set(required) }
}
