/** Name rules of grants and documents. A pattern that matches nothing, as of a host in upper case, is a fault: it denies nothing. */

import { isProblem, Problem, type Violation } from '../errors.ts'
import { isObject } from '../lib/canonical-json.ts'
import { parseName } from '../x509/names.ts'
import {
  isRuledKind,
  type KindRules,
  type NameRules,
  type Pattern,
  pointer,
  type RuledKind,
  readPattern,
  ruledKinds,
  show,
} from './names.ts'

/**
 * Name rules as they come from JSON, for a grant: `{ dns: { allow: [...], deny?: [...] }, ... }`. Unknown fields are
 * errors. Throws `request.malformed` with every fault, places as JSON pointers below `at`.
 */
export const parseNameRules = (input: unknown, at = ''): NameRules => {
  const faults: Violation[] = []
  const fault = (field: string, value: unknown, reason: string) =>
    faults.push({ check: 'grant.names', field, value: show(value), reason })
  const rules: { -readonly [kind in RuledKind]?: KindRules } = {}
  if (!isObject(input)) {
    fault(at, input, 'must be an object with rules by kind of name')
  } else {
    for (const [key, value] of Object.entries(input)) {
      if (!isRuledKind(key)) fault(`${at}/${pointer(key)}`, key, `is not a kind of name; use ${ruledKinds.join(', ')}`)
      else if (!isObject(value)) fault(`${at}/${key}`, value, 'must be an object with `allow` and perhaps `deny`')
      else rules[key] = readKindRules(key, value, { at: `${at}/${key}`, fault })
    }
  }
  if (faults.length > 0) throw new Problem('request.malformed', 'The name rules are not valid.', { violations: faults })
  return rules
}

/** Reads one pattern; what could match no name is wrong, too. A string says what is wrong with it. */
export const readNewPattern = (kind: RuledKind, text: string): Pattern | string => {
  const pattern = readPattern(kind, text)
  return typeof pattern === 'string' ? pattern : (idleFault(kind, text) ?? pattern)
}

/** Why no name ever matches this pattern, which was read. */
export const idleFault = (kind: RuledKind, text: string): string | undefined => {
  // Every range that can be read has addresses in it, and a common name may be any text.
  if (kind === 'ip' || kind === 'commonName') return undefined
  try {
    parseName(kind, text.replaceAll(/\*+/g, 'x'))
    return undefined
  } catch (error) {
    if (!isProblem(error)) throw error
    return `matches no name that can be asked for: ${error.detail}`
  }
}

interface Reading {
  readonly at: string
  readonly fault: (field: string, value: unknown, reason: string) => void
}

const readKindRules = (
  kind: RuledKind,
  input: Readonly<Record<string, unknown>>,
  { at, fault }: Reading,
): KindRules => {
  for (const key of Object.keys(input)) {
    if (key !== 'allow' && key !== 'deny')
      fault(`${at}/${pointer(key)}`, key, 'is not a known field; use allow and deny')
  }
  const list = (key: 'allow' | 'deny'): readonly string[] => {
    const value = input[key]
    if (!Array.isArray(value)) {
      fault(`${at}/${key}`, value, 'must be a list of patterns')
      return []
    }
    if (key === 'allow' && value.length === 0) fault(`${at}/${key}`, '', 'must hold at least one pattern')
    if (value.length > maxPatterns) {
      fault(`${at}/${key}`, String(value.length), `must hold at most ${maxPatterns} patterns`)
      return []
    }
    const seen = new Set<string>()
    value.forEach((text: unknown, index) => {
      const place = `${at}/${key}/${index}`
      const reason = typeof text === 'string' ? readNewPattern(kind, text) : 'must be a string'
      if (typeof reason === 'string') fault(place, text, reason)
      else if (seen.has(reason.text)) fault(place, text, 'occurs twice')
      if (typeof text === 'string') seen.add(text)
    })
    return value.filter((text): text is string => typeof text === 'string')
  }
  return { allow: list('allow'), ...(input.deny === undefined ? {} : { deny: list('deny') }) }
}

const maxPatterns = 1000
