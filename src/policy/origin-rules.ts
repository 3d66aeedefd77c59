/** Rules of origins, of a profile and of a grant: which namespaces, users and groups. */

import { Problem, type Violation } from '../errors.ts'
import { show } from './names.ts'
import { type Origin, type OriginRules, originField } from './origin.ts'
import { compileTextPattern, readTextPattern, type TextPattern } from './subject.ts'

/** Rules that were compiled. A facet without them is anybody's. */
export interface CompiledOriginRules {
  readonly required: boolean
  readonly facets: { readonly [F in Facet]?: CompiledFacet }
}

export type Facet = 'namespaces' | 'users' | 'groups'

export interface CompiledFacet {
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

export const facets: { readonly [F in Facet]: FacetKind } = {
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

export const facetNames = Object.keys(facets) as readonly Facet[]

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
