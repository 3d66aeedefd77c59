/** CertificateRequest of cert-manager: the schema of its CRD as far as recordings show it, and its webhook. */

import { userTree } from './people.ts'
import { pemBlocks, readRequest } from './pkix.ts'
import { type Cause, deniedByWebhook, forbiddenValue, invalidValue, quote } from './refusal.ts'
import { type Context, isNew, type Rules } from './resource.ts'
import { at, condition, isTree, namespaceOf, same, type Tree, textAt, textsAt, treeAt, treesAt } from './values.ts'

/** What the webhook adds to the rules of a custom resource. */
export const certificateRequestRules: Rules = {
  admit: (next, live, { user }) => {
    if (!isNew(live)) return next
    const { username: _, uid: __, groups: ___, extra: ____, ...spec } = treeAt(next, 'spec')
    return { ...next, spec: { ...spec, ...userTree(user) } }
  },
  review: (next, live, context) => {
    // What refuses is bound to namespaces without this label; what changes (admit) is not.
    const { metadata } = context.store.find('namespaces', '', namespaceOf(next)) ?? {}
    if (textAt(metadata, 'labels', 'cert-manager.io/disable-validation') === 'true') return
    const causes = isNew(live) ? validateRequest(next) : validateChange(next, live)
    if (causes.length > 0) throw deniedByWebhook(webhook, causes)
    const refused = isNew(live) ? [] : reviewDecision(next, live, context)
    if (refused.length > 0) throw deniedByWebhook(webhook, refused)
  },
}

const webhook = 'webhook.cert-manager.io'

const validateRequest = (next: Tree): Cause[] => {
  const text = Buffer.from(textAt(next, 'spec', 'request'), 'base64').toString()
  const shown = quote(text.length > 100 ? `${text.slice(0, 97)}...` : text)
  const fault = (detail: string): Cause[] => [invalidValue('spec.request', shown, detail)]
  const [block] = pemBlocks(text)
  if (block === undefined)
    return fault('error decoding certificate request PEM block: no PEM data was found in given input')
  const request = readRequest(block.der)
  if (request === undefined) return fault('error parsing certificate request: x509: malformed certificate request')
  const usages = wantedUsages(next)
  const differ = (what: string, encoded: readonly string[], expected: readonly string[]): Cause[] =>
    fault(`encoded CSR error: the ${what} ${listed(encoded)} do not match the expected ${what} ${listed(expected)}`)
  const keyUsages = usages.filter((usage) => plainUsages.includes(usage))
  const purposes = usages.filter((usage) => !plainUsages.includes(usage))
  if (request.extensions.has('2.5.29.15') && !sameMembers(request.keyUsages, keyUsages))
    return differ('KeyUsages', request.keyUsages, keyUsages)
  if (request.extensions.has('2.5.29.37') && !sameMembers(request.extendedKeyUsages, purposes))
    return differ('ExtKeyUsages', request.extendedKeyUsages, purposes)
  return []
}

const wantedUsages = (next: Tree): readonly string[] => {
  const said = textsAt(next, 'spec', 'usages')
  const usages = said.length === 0 ? ['digital signature', 'key encipherment'] : said
  return at(next, 'spec', 'isCA') === true ? [...usages, 'cert sign'] : usages
}

const listed = (names: readonly string[]): string =>
  names.length === 0 ? '[]' : `[ ${names.map((name) => `'${name}'`).join(', ')} ]`

const sameMembers = (one: readonly string[], other: readonly string[]): boolean =>
  same([...new Set(one)].sort(), [...new Set(other)].sort())

const validateChange = (next: Tree, live: Tree): Cause[] => {
  if (!same(next['spec'], live['spec'])) return [forbiddenValue('spec', 'cannot change spec after creation')]
  const changed = decisions
    .filter((type) => condition(live, type) !== undefined && !same(condition(live, type), condition(next, type)))
    .map((type) => forbiddenValue('status.conditions', `'${type}' condition may not be modified once set`))
  const both = decisions.every((type) => condition(next, type) !== undefined)
    ? [forbiddenValue('status.conditions', "both 'Denied' and 'Approved' conditions cannot coexist")]
    : []
  const untrue = treesAt(next, 'status', 'conditions')
    .filter((one) => decisions.includes(textAt(one, 'type')) && one['status'] !== 'True')
    .map((one) => {
      const type = textAt(one, 'type')
      const detail = `${quote(type)} condition may only be set to True`
      return invalidValue(`status.conditions.${type}`, quote(textAt(one, 'status')), detail)
    })
  return [...changed, ...both, ...untrue]
}

/** Who decides on a request needs the verb approve on its signer, which must be a kind that exists. */
const reviewDecision = (next: Tree, live: Tree, { user, findKind, maySign }: Context): Cause[] => {
  if (decisions.every((type) => same(condition(live, type), condition(next, type)))) return []
  const { group = 'cert-manager.io', kind = 'Issuer', name = '' } = treeAt(next, 'spec', 'issuerRef')
  // As it stands there, with nothing in place of what is not said.
  const said = `{${['name', 'kind', 'group'].map((member) => textAt(next, 'spec', 'issuerRef', member)).join(' ')}}`
  const issuer = findKind(String(group), String(kind))
  if (issuer === undefined)
    return [forbiddenValue('spec.issuerRef', `referenced signer resource does not exist: ${said}`)]
  const path = issuer.namespaced ? `${namespaceOf(next)}.${String(name)}` : String(name)
  if (maySign('cert-manager.io', 'approve', `${issuer.plural}.${issuer.group}/${path}`)) return []
  return [
    forbiddenValue(
      'status.conditions',
      `user ${quote(user.username)} does not have permissions to set approved/denied conditions for issuer ${said}`,
    ),
  ]
}

const decisions = ['Approved', 'Denied']

const plainUsages = [
  'signing',
  'digital signature',
  'content commitment',
  'key encipherment',
  'key agreement',
  'data encipherment',
  'cert sign',
  'crl sign',
  'encipher only',
  'decipher only',
]

const text: Tree = { type: 'string' }
const texts: Tree = { type: 'array', items: text, 'x-kubernetes-list-type': 'atomic' }

const conditions: Tree = {
  type: 'array',
  'x-kubernetes-list-type': 'map',
  'x-kubernetes-list-map-keys': ['type'],
  items: {
    type: 'object',
    required: ['status', 'type'],
    properties: {
      type: text,
      status: { type: 'string', enum: ['True', 'False', 'Unknown'] },
      reason: text,
      message: text,
      observedGeneration: { type: 'integer', format: 'int64' },
      lastTransitionTime: { type: 'string', format: 'date-time' },
    },
  },
}

const certificateRequestSchema: Tree = {
  type: 'object',
  properties: {
    spec: {
      type: 'object',
      required: ['issuerRef', 'request'],
      properties: {
        duration: text,
        extra: { type: 'object', additionalProperties: texts },
        groups: texts,
        isCA: { type: 'boolean' },
        issuerRef: { type: 'object', required: ['name'], properties: { group: text, kind: text, name: text } },
        request: { type: 'string', format: 'byte' },
        uid: text,
        usages: texts,
        username: text,
      },
    },
    status: {
      type: 'object',
      properties: {
        ca: { type: 'string', format: 'byte' },
        certificate: { type: 'string', format: 'byte' },
        conditions,
        failureTime: { type: 'string', format: 'date-time' },
      },
    },
  },
}

const anything: Tree = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true }

/** A schema for what nobody judges here. */
const openSchema: Tree = {
  type: 'object',
  properties: { spec: anything, status: { ...anything, properties: { conditions } } },
}

const definition = (plural: string, kind: string, more: Tree): Tree => {
  const { scope = 'Namespaced', schema = openSchema, shortNames = [], selectableFields } = more
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.cert-manager.io` },
    spec: {
      group: 'cert-manager.io',
      scope,
      names: {
        kind,
        plural,
        singular: kind.toLowerCase(),
        listKind: `${kind}List`,
        shortNames,
        categories: ['cert-manager'],
      },
      versions: [
        {
          name: 'v1',
          served: true,
          storage: true,
          subresources: { status: {} },
          schema: { openAPIV3Schema: schema },
          ...(isTree(selectableFields) ? {} : { selectableFields: selectableFields ?? [] }),
        },
      ],
    },
  }
}

/** In the order in which discovery lists them. The fields of an issuer can be selected since cert-manager 1.20. */
export const certManagerDefinitions = (release: '1.34' | '1.36'): readonly Tree[] => {
  const isNewer = release === '1.36'
  const issuers = [
    definition('clusterissuers', 'ClusterIssuer', { scope: 'Cluster', shortNames: ['ciss'] }),
    definition('issuers', 'Issuer', { shortNames: ['iss'] }),
  ]
  const others = [
    definition('certificaterequests', 'CertificateRequest', {
      schema: certificateRequestSchema,
      shortNames: ['cr', 'crs'],
      selectableFields: isNewer
        ? ['group', 'kind', 'name'].map((name) => ({ jsonPath: `.spec.issuerRef.${name}` }))
        : [],
    }),
    definition('certificates', 'Certificate', { shortNames: ['cert', 'certs'] }),
  ]
  return isNewer ? [...issuers, ...others] : [...others, ...issuers]
}
