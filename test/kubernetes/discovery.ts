/** The documents from which clients learn which groups, versions and kinds there are. */
import { createHash } from 'node:crypto'

import type { Catalogue } from './catalogue.ts'
import { apiVersionOf, type Resource } from './resource.ts'
import type { Tree } from './values.ts'

/** Undefined where there is no such document. */
export const discover = (path: string, catalogue: Catalogue): Tree | undefined => {
  const parts = path.split('/').filter((part) => part !== '')
  const [root, group = '', version] = parts
  if (path === '/version') return { major: '1', minor: '36', gitVersion: 'v1.36.3' }
  if (path === '/api') return { kind: 'APIVersions', versions: ['v1'] }
  if (path === '/apis')
    return {
      kind: 'APIGroupList',
      apiVersion: 'v1',
      groups: groupsOf(catalogue).map((name) => groupOf(name, catalogue)),
    }
  if (root === 'api' && parts.length === 2) return kindsOf('', group, catalogue)
  if (root !== 'apis' || parts.length > 3) return undefined
  if (version !== undefined) return kindsOf(group, version, catalogue)
  if (!groupsOf(catalogue).includes(group)) return undefined
  return { kind: 'APIGroup', apiVersion: 'v1', ...groupOf(group, catalogue) }
}

const groupsOf = (catalogue: Catalogue): readonly string[] => [
  ...new Set(catalogue.all().flatMap(({ group }) => (group === '' ? [] : [group]))),
]

const groupOf = (name: string, catalogue: Catalogue): Tree => {
  const versions = [...new Set(catalogue.all().flatMap(({ group, version }) => (group === name ? [version] : [])))]
    // Stable versions come first.
    .sort((one, other) => Number(/alpha|beta/.test(one)) - Number(/alpha|beta/.test(other)))
    .map((version) => ({ groupVersion: `${name}/${version}`, version }))
  return { name, versions, preferredVersion: { ...(versions[0] ?? {}) } }
}

const kindsOf = (group: string, version: string, catalogue: Catalogue): Tree | undefined => {
  const found = catalogue.all().filter((one) => one.group === group && one.version === version)
  const [first] = found
  if (first === undefined) return undefined
  return {
    kind: 'APIResourceList',
    apiVersion: 'v1',
    groupVersion: apiVersionOf(first),
    resources: found.flatMap(entriesOf),
  }
}

const entriesOf = (resource: Resource): Tree[] => {
  const { plural, singular, namespaced, kind, verbs, shortNames, categories, reset } = resource
  const subresources = Object.keys(reset)
    .filter((name) => name !== '')
    .map((name) => ({
      name: `${plural}/${name}`,
      singularName: '',
      namespaced,
      kind,
      verbs: ['get', 'patch', 'update'],
    }))
  return [
    {
      name: plural,
      singularName: singular,
      namespaced,
      kind,
      verbs: [...verbs],
      ...(shortNames.length === 0 ? {} : { shortNames: [...shortNames] }),
      ...(categories.length === 0 ? {} : { categories: [...categories] }),
      ...(resource.rules.answer === undefined ? { storageVersionHash: hashOf(resource) } : {}),
    },
    ...subresources,
  ]
}

/** Tells clients when a kind is stored in another version than before. */
const hashOf = ({ group, storageVersion, kind }: Resource): string =>
  createHash('sha256').update(`${group}/${storageVersion}/${kind}`).digest().subarray(0, 8).toString('base64')
