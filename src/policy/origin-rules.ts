/** Rules of origins, of a profile and of a grant: which namespaces, users and groups. */
import { Problem, type Violation } from '../errors.ts'
import type { Check, Say } from './checks.ts'
import { show } from './names.ts'
import { type Origin, type OriginRules, originField } from './origin.ts'
import { compileTextPattern, readTextPattern, type TextPattern } from './subject.ts'

/** Rules that were compiled. A facet without them is anybody's. */
export interface CompiledOriginRules {
  readonly required: boolean
  readonly facets: { readonly [F in Facet]?: CompiledFacet }
}

export type Facet = 'namespaces' | 'users' | 'groups'

interface CompiledFacet {
  /** One of these must be met; undefined: any. */
  readonly wanted: readonly TextPattern[] | undefined
  readonly denied: readonly TextPattern[]
}

interface FacetKind {
  readonly field: string
  readonly one: string
  readonly valuesOf: (origin: Origin) => readonly string[]
  /** The member of the rule that says what must be met. */
  readonly wanted: 'allow' | 'require'
}

const facets: { readonly [F in Facet]: FacetKind } = {
  namespaces: {
    field: `${originField}/namespace`,
    one: 'namespace',
    valuesOf: ({ namespace }) => (namespace === undefined ? [] : [namespace]),
    wanted: 'allow',
  },
  users: {
    field: `${originField}/user`,
    one: 'user',
    valuesOf: ({ user }) => (user === undefined ? [] : [user]),
    wanted: 'allow',
  },
  groups: {
    field: `${originField}/groups`,
    one: 'group',
    valuesOf: ({ groups = [] }) => groups,
    wanted: 'require',
  },
}

const facetNames = Object.keys(facets) as readonly Facet[]

type Lists = { readonly [list in 'allow' | 'require' | 'deny']?: readonly string[] }

/** Every fault of the patterns, whose shape is sound; places are below `at`. */
export const originRuleFaults = (
  rules: OriginRules,
  at: string,
  report: (field: string, value: string, reason: string) => void,
): void => {
  for (const facet of facetNames) {
    const lists: Lists = rules[facet] ?? {}
    const { wanted } = facets[facet]
    for (const list of [wanted, 'deny'] as const) {
      const seen = new Set<string>()
      lists[list]?.forEach((text, i) => {
        const place = `${at}/${facet}/${list}/${i}`
        const pattern = readTextPattern(text)
        if (typeof pattern === 'string') report(place, text, pattern)
        if (seen.has(text)) report(place, text, 'occurs twice')
        if (list === wanted && lists.deny?.includes(text)) report(place, text, 'is denied too, and deny wins')
        seen.add(text)
      })
    }
  }
}

/** Of a grant, as they come from JSON. Throws `request.malformed` with every fault, places below `at`. */
export const parseOriginRules = (rules: OriginRules, at: string): OriginRules => {
  const violations: Violation[] = []
  originRuleFaults(rules, at, (field, value, reason) =>
    violations.push({ check: 'grant.origin', field, value: show(value), reason }),
  )
  if (violations.length === 0) return rules
  throw new Problem('request.malformed', 'The rules of origins are not valid.', { violations })
}

/** Patterns are known to be good; a bad one throws TypeError. */
export const compileOriginRules = (rules: OriginRules): CompiledOriginRules => {
  const compiled: { -readonly [F in Facet]?: CompiledFacet } = {}
  for (const facet of facetNames) {
    const lists: Lists | undefined = rules[facet]
    if (lists === undefined) continue
    compiled[facet] = {
      wanted: lists[facets[facet].wanted]?.map(compileTextPattern),
      denied: (lists.deny ?? []).map(compileTextPattern),
    }
  }
  return { required: rules.required ?? false, facets: compiled }
}

/** Rules of a grant are compiled once for as long as it is held in memory. Those that cannot be read allow nobody. */
export const compileGrantOrigin = (rules: OriginRules | undefined): CompiledOriginRules | null => {
  if (rules === undefined) return null
  const known = compiledGrants.get(rules)
  if (known !== undefined) return known
  const compiled = tryCompile(rules)
  compiledGrants.set(rules, compiled)
  return compiled
}

const tryCompile = (rules: OriginRules): CompiledOriginRules | null => {
  try {
    return compileOriginRules(rules)
  } catch {
    return null
  }
}

const compiledGrants = new WeakMap<OriginRules, CompiledOriginRules | null>()

// Checks ----------------------------------------------------------------------------------------------------------------

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
