/** Field and label selectors. */
import { badRequest } from './refusal.ts'
import type { Resource } from './resource.ts'
import { at, type Tree, textAt } from './values.ts'

export type Matcher = (object: Tree) => boolean

/** Throws for a field that the kind does not let select. */
export const parseSelectors = (query: URLSearchParams, resource: Resource): Matcher => {
  const fields = parseFields(query.get('fieldSelector') ?? '', resource)
  const labels = parseLabels(query.get('labelSelector') ?? '')
  return (object) => fields(object) && labels(object)
}

const parseFields = (text: string, { selectable }: Resource): Matcher => {
  const terms = text.split(',').filter((term) => term !== '')
  const each = terms.map((term): Matcher => {
    const [, field = '', operator, wanted = ''] = /^([^=!]+)(!=|==|=)(.*)$/.exec(term) ?? []
    if (operator === undefined) throw badRequest(`invalid selector: '${text}'; can't understand '${term}'`)
    if (!['metadata.name', 'metadata.namespace', ...selectable].includes(field))
      throw badRequest(`field label not supported: ${field}`)
    return (object) => (textAt(object, ...field.split('.')) === wanted) === (operator !== '!=')
  })
  return (object) => each.every((matches) => matches(object))
}

const parseLabels = (text: string): Matcher => {
  const terms = [...text.matchAll(/\s*((?:[^,(]|\([^)]*\))+)/g)].map(([, term = '']) => term.trim())
  const each = terms.map((term): Matcher => {
    const set = /^(\S+)\s+(in|notin)\s+\(([^)]*)\)$/.exec(term)
    if (set !== null) {
      const values = (set[3] ?? '').split(',').map((value) => value.trim())
      return (object) => values.includes(labelOf(object, set[1] ?? '') ?? '\0') === (set[2] === 'in')
    }
    const pair = /^([^=!\s]+)\s*(!=|==|=)\s*(.*)$/.exec(term)
    if (pair !== null) return (object) => (labelOf(object, pair[1] ?? '') === pair[3]) === (pair[2] !== '!=')
    const absent = term.startsWith('!')
    return (object) => (labelOf(object, term.replace(/^!/, '')) === undefined) === absent
  })
  return (object) => each.every((matches) => matches(object))
}

const labelOf = (object: Tree, name: string): string | undefined => {
  const found = at(object, 'metadata', 'labels', name)
  return typeof found === 'string' ? found : undefined
}
