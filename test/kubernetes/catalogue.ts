/** Every kind that the server has: the built-in ones in one table, and those that CustomResourceDefinitions add. */
import { certificateRequestRules } from './cert-manager.ts'
import { certificateSigningRequests } from './csr.ts'
import { coreEvents, events, leases } from './events.ts'
import { podCertificateRequests } from './pod-certificates.ts'
import type { Cause } from './refusal.ts'
import { type Context, type Decoded, isNew, keep, type Resource, type Rules, resourceOf } from './resource.ts'
import { requestToken, selfSubjectAccessReviews, subjectAccessReviews, tokenReviews } from './reviews.ts'
import { faultsOfSchema, pruneBySchema, validateBySchema } from './schema.ts'
import { objectShape, shapeOfSchema } from './shape.ts'
import type { Store } from './store.ts'
import { condition, isTree, nameOf, type Tree, textAt, textsAt, treeAt, treesAt, withoutEmpty } from './values.ts'

export type Release = '1.34' | '1.36'

export interface Catalogue {
  all(): readonly Resource[]
  /** Undefined for a kind that is not served. */
  find(group: string, version: string, plural: string): Resource | undefined
  findKind(group: string, kind: string): Resource | undefined
}

export const openCatalogue = (store: Store, release: Release): Catalogue => {
  const builtIn = builtInResources(release)
  let custom: readonly Resource[] = []
  let seen = -1
  let changes = 0
  const order: string[] = []
  store.follow(({ kind, type, object }) => {
    if (kind !== customResourceDefinitions.storage) return
    changes += 1
    if (type === 'ADDED') order.push(nameOf(object))
  })
  const all = (): readonly Resource[] => {
    if (seen !== changes) {
      seen = changes
      const definitions = [...store.all(customResourceDefinitions.storage)].sort(
        (one, other) => order.indexOf(nameOf(one)) - order.indexOf(nameOf(other)),
      )
      custom = definitions.filter(isEstablished).flatMap(resourcesOfDefinition)
    }
    return [...builtIn, ...custom]
  }
  return {
    all,
    find: (group, version, plural) =>
      all().find((one) => one.group === group && one.version === version && one.plural === plural),
    findKind: (group, kind) => all().find((one) => one.group === group && one.kind === kind),
  }
}

export const isEstablished = (definition: Tree): boolean => condition(definition, 'Established')?.['status'] === 'True'

const definitionForm = (object: Tree): Decoded => {
  const { metadata, spec, status, apiVersion, kind, ...others } = object
  const names = treeAt(spec, 'names')
  const accepted = treeAt(status, 'acceptedNames')
  const name = textAt(names, 'kind')
  const given = isTree(spec)
    ? {
        conversion: { strategy: 'None' },
        ...withoutEmpty(spec),
        names: { singular: name.toLowerCase(), listKind: `${name}List`, ...names },
      }
    : {}
  return {
    object: {
      ...(apiVersion === undefined ? {} : { apiVersion }),
      ...(kind === undefined ? {} : { kind }),
      metadata: treeAt(metadata),
      spec: given,
      status: {
        conditions: treeAt(status)['conditions'] ?? null,
        acceptedNames: { plural: '', kind: '', ...accepted },
        storedVersions: textsAt(status, 'storedVersions'),
      },
    },
    unknown: Object.keys(others),
  }
}

export const customResourceDefinitions: Resource = resourceOf(
  {
    group: 'apiextensions.k8s.io',
    version: 'v1',
    plural: 'customresourcedefinitions',
    kind: 'CustomResourceDefinition',
    namespaced: false,
    generation: true,
    shortNames: ['crd', 'crds'],
    reset: { '': [['status']], status: [['spec'], ['metadata']] },
    shape: objectShape(),
  },
  {
    decode: definitionForm,
    prepare: (next, live, { subresource }) => {
      if (!isNew(live)) return subresource === 'status' ? keep(next, live, 'spec') : keep(next, live, 'status')
      const stored = treesAt(next, 'spec', 'versions').filter(({ storage }) => storage === true)
      const status = { conditions: null, acceptedNames: { plural: '', kind: '' } }
      return { ...next, status: { ...status, storedVersions: stored.map((version) => textAt(version, 'name')) } }
    },
    validate: (next): Cause[] =>
      treesAt(next, 'spec', 'versions').flatMap((version) =>
        faultsOfSchema(treeAt(version, 'schema', 'openAPIV3Schema'), 'spec.validation.openAPIV3Schema'),
      ),
  },
)

/** The status with which the server accepts a definition. */
export const establishedStatus = (definition: Tree, time: string): Tree => {
  const said = (type: string, reason: string, message: string): Tree => ({
    type,
    status: 'True',
    lastTransitionTime: time,
    reason,
    message,
  })
  return {
    ...treeAt(definition, 'status'),
    conditions: [
      said('NamesAccepted', 'NoConflicts', 'no conflicts found'),
      said('Established', 'InitialNamesAccepted', 'the initial names have been accepted'),
    ],
    acceptedNames: treeAt(definition, 'spec', 'names'),
  }
}

const resourcesOfDefinition = (definition: Tree): readonly Resource[] => {
  const spec = treeAt(definition, 'spec')
  const names = treeAt(spec, 'names')
  const group = textAt(spec, 'group')
  return treesAt(spec, 'versions')
    .filter(({ served }) => served !== false)
    .map((version) => {
      const schema = treeAt(version, 'schema', 'openAPIV3Schema')
      const hasStatus = isTree(treeAt(version, 'subresources')['status'])
      const plural = textAt(names, 'plural')
      const own = plural === 'certificaterequests' && group === 'cert-manager.io' ? certificateRequestRules : {}
      const shape = shapeOfSchema(schema)
      return resourceOf(
        {
          group,
          version: textAt(version, 'name'),
          plural,
          kind: textAt(names, 'kind'),
          singular: textAt(names, 'singular'),
          namespaced: spec['scope'] === 'Namespaced',
          storage: `${plural}.${group}`,
          verbs: ['delete', 'deletecollection', 'get', 'list', 'patch', 'create', 'update', 'watch'],
          shortNames: textsAt(names, 'shortNames'),
          categories: textsAt(names, 'categories'),
          reset: hasStatus ? { '': [['status']], status: [['spec'], ['metadata']] } : { '': [] },
          shape: shape.of === 'fields' ? objectShape(shape.fields, shape.others) : objectShape(),
          selectable: treesAt(version, 'selectableFields').map((field) => textAt(field, 'jsonPath').slice(1)),
          native: false,
          generation: true,
        },
        customRules(schema, hasStatus, own),
      )
    })
}

const customRules = (schema: Tree, hasStatus: boolean, own: Rules): Rules => ({
  ...own,
  decode: (object): Decoded => {
    const { value, unknown } = pruneBySchema(object, schema)
    return { object: value, unknown }
  },
  prepare: (next, live, { subresource }) => {
    if (subresource === 'status') {
      const metadata = { ...treeAt(live, 'metadata') }
      const { managedFields } = treeAt(next, 'metadata')
      delete metadata['managedFields']
      if (managedFields !== undefined) metadata['managedFields'] = managedFields
      return { ...live, metadata, ...statusOf(next) }
    }
    return hasStatus ? keep(next, isNew(live) ? undefined : live, 'status') : next
  },
  validate: (next, _live, context: Context): Cause[] => {
    const status = treeAt(schema, 'properties', 'status')
    return context.subresource === 'status'
      ? validateBySchema(treeAt(next, 'status'), status, ['status'])
      : validateBySchema(next, schema)
  },
})

const statusOf = (next: Tree): Tree => (next['status'] === undefined ? {} : { status: next['status'] })

const plain = (group: string, plural: string, kind: string, more: Partial<Resource> = {}): Resource =>
  resourceOf({ group, version: 'v1', plural, kind, namespaced: true, shape: objectShape(), ...more })

const serviceAccounts = resourceOf(
  {
    group: '',
    version: 'v1',
    plural: 'serviceaccounts',
    kind: 'ServiceAccount',
    namespaced: true,
    shortNames: ['sa'],
    shape: objectShape(),
    reset: { '': [], token: [] },
  },
  { ask: requestToken },
)

const rbac = 'rbac.authorization.k8s.io'

const builtInResources = (release: Release): readonly Resource[] => {
  const beta = release === '1.34' ? 'v1alpha1' : 'v1beta1'
  return [
    plain('', 'namespaces', 'Namespace', { namespaced: false, shortNames: ['ns'] }),
    plain('', 'nodes', 'Node', {
      namespaced: false,
      shortNames: ['no'],
      reset: { '': [['status']], status: [['spec']] },
    }),
    plain('', 'pods', 'Pod', { shortNames: ['po'], reset: { '': [['status']], status: [['spec']] } }),
    plain('', 'secrets', 'Secret', { selectable: ['type'] }),
    plain('', 'configmaps', 'ConfigMap', { shortNames: ['cm'] }),
    plain('', 'services', 'Service', { shortNames: ['svc'] }),
    serviceAccounts,
    coreEvents,
    events,
    leases,
    plain(rbac, 'clusterroles', 'ClusterRole', { namespaced: false }),
    plain(rbac, 'clusterrolebindings', 'ClusterRoleBinding', { namespaced: false }),
    plain(rbac, 'roles', 'Role'),
    plain(rbac, 'rolebindings', 'RoleBinding'),
    plain('admissionregistration.k8s.io', 'validatingwebhookconfigurations', 'ValidatingWebhookConfiguration', {
      namespaced: false,
    }),
    tokenReviews,
    subjectAccessReviews,
    selfSubjectAccessReviews,
    customResourceDefinitions,
    certificateSigningRequests,
    plain('certificates.k8s.io', 'clustertrustbundles', 'ClusterTrustBundle', {
      namespaced: false,
      version: beta,
      // Stored as beta also where alpha alone was read first.
      storageVersion: 'v1beta1',
    }),
    podCertificateRequests(beta),
  ]
}
