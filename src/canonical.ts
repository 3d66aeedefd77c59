/**
 * Canonical JSON (RFC 8785): one text for one value, so that a digest over it means something. Strings and numbers are
 * written as ECMAScript writes them, which is what the RFC took over; members are sorted by their UTF-16 code units.
 * Values are plain data: an `undefined` member is left out, and what JSON can't say throws a `TypeError`.
 */
export const canonicalJson = (value: unknown): string => {
  switch (typeof value) {
    case 'string':
      if (!value.isWellFormed()) throw new TypeError('a lone surrogate has no canonical form (RFC 8785 3.2.2.2)')
      return JSON.stringify(value)
    case 'boolean':
      return value ? 'true' : 'false'
    case 'number':
      if (!Number.isFinite(value)) throw new TypeError(`${value} has no canonical form (RFC 8785 3.2.2.3)`)
      return JSON.stringify(value)
    case 'object':
      if (value === null) return 'null'
      if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`
      return canonicalObject(value as Readonly<Record<string, unknown>>)
    default:
      throw new TypeError(`a ${typeof value} has no canonical form`)
  }
}

const canonicalObject = (object: Readonly<Record<string, unknown>>): string => {
  const members: string[] = []
  for (const name of Object.keys(object).sort()) {
    const member = object[name]
    if (member !== undefined) members.push(`${JSON.stringify(name)}:${canonicalJson(member)}`)
  }
  return `{${members.join(',')}}`
}
