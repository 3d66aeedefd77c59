/** What claims may become: names of principals, and parts of name rules. A claim stands for itself, never for a pattern. */
import { readTemplate, type Template } from './claims.ts'
import { type KindRules, type NameRules, readPattern, ruledKinds } from './names.ts'

/** A string says what is wrong with it. */
export const readPrincipalTemplate = (text: string): Template | string => {
  const template = readTemplate(text, (value) => principalPart.test(value))
  if (typeof template === 'string') return template
  // No token may choose a name that somebody else has: what comes of claims has a space of its own.
  if (template.claims.length > 0 && !/^[A-Za-z0-9][A-Za-z0-9._-]*[:/]/.test(text.split('{', 1)[0] ?? ''))
    return 'has a claim before a prefix that ends in a colon or a slash, like sa:{sub}'
  const example = template.fill(() => 'x')
  if (example === undefined) return 'has an `x` after a claim, which no value could be told from'
  if (!principalName.test(example)) return 'is no name of a principal: letters, digits and . _ : @ / -, up to 128'
  return {
    ...template,
    fill: (find) => {
      const filled = template.fill(find)
      return filled !== undefined && principalName.test(filled) ? filled : undefined
    },
  }
}

/** A rule with claims (or what else): a DNS label, a segment of a URI's path, or a part of a common name. A string says what is wrong with it. */
export const readNameTemplate = (
  kind: keyof NameRules,
  text: string,
  what: 'claim' | 'source' = 'claim',
): Template | string => {
  const template = readTemplate(text, (value) => parts[kind]?.test(value) ?? false, what)
  if (typeof template === 'string') return template
  if (template.claims.length > 0 && parts[kind] === undefined)
    return `has a ${what}; only rules for dns, uri and commonName may`
  // Beside a wildcard, what a claim says would decide how much it stands for.
  if (kind === 'commonName' && template.claims.length > 0 && text.includes('*'))
    return `has a ${what} beside a wildcard`
  if (kind === 'uri' && (template.text.split('{', 1)[0] ?? '').split('/').length < 4 && template.claims.length > 0)
    return `has a ${what} before its path`
  const example = template.fill(() => 'x')
  const pattern =
    example === undefined
      ? `has an \`x\` after a ${what}, which no value could be told from`
      : readPattern(kind, example)
  return typeof pattern === 'string' ? pattern : template
}

export interface NameTemplates {
  /** Undefined where a claim cannot stand where it should. */
  fill(find: (name: string) => unknown): NameRules | undefined
}

/** Of rules whose templates are known to be good. */
export const readNameTemplates = (rules: NameRules): NameTemplates => {
  const fillAll = (kind: keyof NameRules, texts: readonly string[], find: (name: string) => unknown) => {
    const filled = texts.map((text) => {
      const template = readNameTemplate(kind, text)
      return typeof template === 'string' ? undefined : template.fill(find)
    })
    return filled.every((text) => text !== undefined && typeof readPattern(kind, text) !== 'string')
      ? (filled as string[])
      : undefined
  }
  return {
    fill: (find) => {
      const found: { -readonly [kind in keyof NameRules]: KindRules } = {}
      for (const kind of ruledKinds) {
        const written = rules[kind]
        if (!written) continue
        const allow = fillAll(kind, written.allow, find)
        const deny = fillAll(kind, written.deny ?? [], find)
        if (!allow || !deny) return undefined
        found[kind] = { allow, ...(written.deny && { deny }) }
      }
      return found
    },
  }
}

const principalPart = /^[A-Za-z0-9._@/:-]{1,128}$/
const principalName = /^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}$/
/**
 * One DNS label; one segment of a path that is not `.` or `..`; of a common name what lies between two colons, or between a
 * colon and an end.
 */
const parts: Partial<Record<keyof NameRules, RegExp>> = {
  dns: /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
  uri: /^(?!\.{1,2}$)[A-Za-z0-9._-]{1,128}$/,
  commonName: /^[A-Za-z0-9._@-]{1,64}$/,
}
