/**
 * Claims of tokens: which are meant, what they must be, and what is made of them. Names and values are compared as they
 * are, case and all. Only documents hold patterns and placeholders; what a token says never acts as either.
 */
import type { ClaimValueDocument } from './identity-document.ts'
import { valueAt } from './shape.ts'

export type Claims = Readonly<Record<string, unknown>>

/** By its name; or, where that begins with a slash, by a JSON pointer (RFC 6901) to what is within one. */
export const claimAt = (claims: Claims, name: string): unknown => {
  if (name.startsWith('/')) return valueAt(claims, name)
  return Object.hasOwn(claims, name) ? claims[name] : undefined
}

export interface ClaimRule {
  readonly name: string
  fits(claims: Claims): boolean
}

/** Reads what a claim must be; a string says what is wrong with it. */
export const readClaimRule = (name: string, value: ClaimValueDocument): ClaimRule | string => {
  if (name.startsWith('/') && /~(?![01])/.test(name)) return 'is not a JSON pointer (RFC 6901)'
  if (typeof value === 'number' && !Number.isSafeInteger(value))
    return 'is beyond 2^53 - 1, where JSON does not tell a number from its neighbours: it would fit nobody'
  if (typeof value === 'boolean' || typeof value === 'number')
    return { name, fits: (claims) => claimAt(claims, name) === value }
  const patterns = (typeof value === 'string' ? [value] : value).map(readSegments)
  const fault = patterns.find((pattern) => typeof pattern === 'string')
  if (typeof fault === 'string') return fault
  const matches = (text: unknown): boolean =>
    typeof text === 'string' && patterns.some((pattern) => typeof pattern !== 'string' && pattern.matches(text))
  return {
    name,
    // One of a list is enough: groups, say.
    fits: (claims) => {
      const found = claimAt(claims, name)
      return Array.isArray(found) ? found.some(matches) : matches(found)
    },
  }
}

/** Text in which `*` stands for one whole segment between slashes and colons, whatever is in it but nothing. */
const readSegments = (text: string): { matches(value: string): boolean } | string => {
  if (!text.includes('*')) return { matches: (value) => value === text }
  const parts = segmentsOf(text)
  if (parts.some((part) => part !== '*' && part.includes('*')))
    return 'has `*` inside a segment; `*` stands for all that is between slashes or colons'
  return {
    matches: (value) => {
      const found = segmentsOf(value)
      return (
        found.length === parts.length &&
        parts.every((part, i) => part === found[i] || (part === '*' && found[i] !== ''))
      )
    },
  }
}

/** Segments and, between them, what parts them. */
const segmentsOf = (text: string): readonly string[] => text.split(/([/:])/)

/** Text with claims in braces, to be filled in. */
export interface Template {
  readonly text: string
  /** The names of its claims. */
  readonly claims: readonly string[]
  /** With what is found for each claim. Undefined where one is missing, or is not of the kind that may stand there. */
  fill(find: (name: string) => unknown): string | undefined
}

/** Reads a template, in which what `accepts` takes may stand; a string says what is wrong with it. `what` stands in braces. */
export const readTemplate = (
  text: string,
  accepts: (value: string) => boolean,
  what: 'claim' | 'source' = 'claim',
): Template | string => {
  const parts = text.split(/\{([^{}]*)\}/)
  const literals = parts.filter((_, i) => i % 2 === 0)
  const names = parts.filter((_, i) => i % 2 === 1)
  if (literals.some((literal) => /[{}]/.test(literal))) return 'has a brace without its partner'
  if (names.includes('')) return `has empty braces; they take the name of a ${what}`
  if (literals.slice(1, -1).includes(''))
    return `has two ${what}s with nothing between them: nobody could tell them apart`
  return {
    text,
    claims: names,
    fill: (find) => {
      let filled = literals[0] ?? ''
      for (const [i, name] of names.entries()) {
        const value = find(name)
        const after = literals[i + 1] ?? ''
        if (typeof value !== 'string' || !accepts(value)) return undefined
        // Else two tokens with other claims could become the same.
        if (after !== '' && value.includes(after.charAt(0))) return undefined
        filled += value + after
      }
      return filled
    },
  }
}
