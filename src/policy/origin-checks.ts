/** The checks of origins: by the rules of the grant, then of the profile. */

import type { Check, Say } from './check.ts'
import { type Origin, originField } from './origin.ts'
import { type CompiledFacet, type Facet, facetNames, facets } from './origin-rules.ts'

/** Says of one facet whether its rule lets this origin pass. `whose`: the rule's owner, as a reason says it. */
const judgeFacet = (say: Say, facet: Facet, rule: CompiledFacet, { origin, whose }: Judged): void => {
  const { field, one, valuesOf } = facets[facet]
  const { wanted, denied } = rule
  const values = valuesOf(origin)
  // One is enough: there may be hundreds of groups.
  for (const value of values) {
    const pattern = denied.find((candidate) => candidate.matches(value))
    if (pattern !== undefined) return say.failed(value, `is denied by ${pattern.text} of ${whose}`, field)
  }
  if (wanted === undefined) return say.passed(values.join(', '), `is not denied by ${whose}`, field)
  for (const value of values) {
    const pattern = wanted.find((candidate) => candidate.matches(value))
    if (pattern !== undefined) return say.passed(value, `matches ${pattern.text} of ${whose}`, field)
  }
  const patterns = wanted.map(({ text }) => text).join(', ')
  if (values.length === 0) say.failed('', `there is no ${one}, and ${whose} wants one of ${patterns}`, field)
  else say.failed(values.join(', '), `matches none of ${patterns} of ${whose}`, field)
}

interface Judged {
  readonly origin: Origin
  readonly whose: string
}

const grantCheck: Check = {
  id: 'grant.origin',
  code: 'origin.forbidden',
  field: originField,
  passes:
    'a request on behalf of others is made under a grant with `onBehalfOf`, whose rules its origin meets; and one without an origin is not, where these say `required`',
  run: ({ origin, grantOrigin }, say) => {
    if (origin === undefined) {
      if (grantOrigin?.required) say.failed('', 'the grant is for requests on behalf of others only')
      else say.skipped('there is no origin')
      return
    }
    if (grantOrigin === null) return say.failed(nameOf(origin), 'the grant is not for requests on behalf of others')
    const ruled = facetNames.filter((facet) => grantOrigin.facets[facet] !== undefined)
    if (ruled.length === 0) say.passed(nameOf(origin), 'the grant is for requests on behalf of others')
    for (const facet of ruled) {
      const rule = grantOrigin.facets[facet]
      if (rule) judgeFacet(say, facet, rule, { origin, whose: 'the grant' })
    }
  },
}

const requiredCheck: Check = {
  id: 'origin.required',
  code: 'policy.origin',
  field: originField,
  passes: 'the request says on whose behalf it is made, where `origin.required` is true',
  run: ({ profile, origin }, say) => {
    if (profile.origin?.required !== true) say.skipped('the profile requires none')
    else if (origin === undefined) say.failed('', 'the profile is for requests on behalf of others only')
    else say.passed(nameOf(origin), 'is told')
  },
}

const nameOf = ({ user, namespace, serviceAccount }: Origin): string => user ?? `${namespace}/${serviceAccount}`

const facetPasses: { readonly [F in Facet]: string } = {
  namespaces:
    'where there is an origin, its namespace matches a pattern of `origin.namespaces.allow`, and none of its `deny`',
  users: 'where there is an origin, its user matches a pattern of `origin.users.allow`, and none of its `deny`',
  groups:
    'where there is an origin, one of its groups matches a pattern of `origin.groups.require`, and none matches one of its `deny`',
}

const facetChecks: readonly Check[] = facetNames.map((facet) => ({
  id: `origin.${facet}`,
  code: 'policy.origin',
  field: facets[facet].field,
  passes: facetPasses[facet],
  run: ({ profile, origin }, say) => {
    const rule = profile.origin?.facets[facet]
    if (rule === undefined) say.skipped(`the profile has no rule for ${facet}`)
    else if (origin === undefined) say.skipped('there is no origin')
    else judgeFacet(say, facet, rule, { origin, whose: 'the profile' })
  },
}))

/** In the order in which they run: what the grant lets nobody say is told before what the profile makes of it. */
export const originChecks: readonly Check[] = [grantCheck, requiredCheck, ...facetChecks]
