/** Role-based access control over the roles and bindings that are in the store. */
import type { User } from './people.ts'
import type { Store } from './store.ts'
import { nameOf, namespaceOf, type Tree, textAt, textsAt, treesAt } from './values.ts'

export interface Action {
  readonly verb: string
  readonly group: string
  /** With a slash and the subresource, if there is one. */
  readonly resource: string
  readonly namespace: string
  readonly name: string
}

export interface Access {
  readonly allowed: boolean
  /** Which binding allowed it, as the authorizer says. */
  readonly reason?: string
}

export const decideAccess = (store: Store, user: User, action: Action): Access => {
  if (user.groups.includes('system:masters')) return { allowed: true }
  const bindings = [
    ...store.all('clusterrolebindings'),
    ...(action.namespace === ''
      ? []
      : store.all('rolebindings').filter((binding) => namespaceOf(binding) === action.namespace)),
  ]
  for (const binding of bindings) {
    const subject = treesAt(binding, 'subjects').find((one) => isSubject(one, user))
    if (subject === undefined) continue
    if (rulesOf(store, binding).some((rule) => covers(rule, action)))
      return { allowed: true, reason: reasonOf(binding, subject) }
  }
  return { allowed: false }
}

/** Whether the user may do this to a signer: by its exact name, or for its whole domain. */
export const maySign = (
  store: Store,
  user: User,
  { group, verb, signer }: { readonly group: string; readonly verb: string; readonly signer: string },
): boolean => {
  const domain = signer.split('/')[0]
  return [signer, `${domain}/*`].some(
    (name) => decideAccess(store, user, { verb, group, resource: 'signers', namespace: '', name }).allowed,
  )
}

/** The sentence with which a refusal tells what was not allowed. */
export const refusalOf = (user: User, { verb, group, resource, namespace }: Action): string =>
  `User "${user.username}" cannot ${verb} resource "${resource}" in API group "${group}" ${
    namespace === '' ? 'at the cluster scope' : `in the namespace "${namespace}"`
  }`

const rulesOf = (store: Store, binding: Tree): readonly Tree[] => {
  const isRole = textAt(binding, 'roleRef', 'kind') === 'Role'
  const name = textAt(binding, 'roleRef', 'name')
  const role = isRole ? store.find('roles', namespaceOf(binding), name) : store.find('clusterroles', '', name)
  return treesAt(role, 'rules')
}

const isSubject = (subject: Tree, user: User): boolean => {
  const name = textAt(subject, 'name')
  if (subject['kind'] === 'Group') return user.groups.includes(name)
  if (subject['kind'] === 'User') return user.username === name
  return user.username === `system:serviceaccount:${textAt(subject, 'namespace')}:${name}`
}

const covers = (rule: Tree, { verb, group, resource, name }: Action): boolean => {
  const names = textsAt(rule, 'resourceNames')
  const subresource = resource.includes('/') ? `*/${resource.split('/')[1]}` : resource
  return (
    includes(textsAt(rule, 'verbs'), verb) &&
    includes(textsAt(rule, 'apiGroups'), group) &&
    (includes(textsAt(rule, 'resources'), resource) || textsAt(rule, 'resources').includes(subresource)) &&
    (names.length === 0 || names.includes(name))
  )
}

const includes = (list: readonly string[], wanted: string): boolean => list.includes('*') || list.includes(wanted)

const reasonOf = (binding: Tree, subject: Tree): string => {
  const kind = namespaceOf(binding) === '' ? 'ClusterRoleBinding' : 'RoleBinding'
  const place = namespaceOf(binding) === '' ? nameOf(binding) : `${nameOf(binding)}/${namespaceOf(binding)}`
  const who = textAt(subject, 'name')
  const whose = subject['kind'] === 'ServiceAccount' ? `${who}/${textAt(subject, 'namespace')}` : who
  const role = `${textAt(binding, 'roleRef', 'kind')} "${textAt(binding, 'roleRef', 'name')}"`
  return `RBAC: allowed by ${kind} "${place}" of ${role} to ${textAt(subject, 'kind')} "${whose}"`
}
