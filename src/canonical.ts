/**
 * The one text of a JSON value (RFC 8785, JCS): members sorted by the UTF-16 units of their names, numbers and strings
 * as ECMAScript writes them, no white space. Two documents with the same content have the same octets, so a hash over
 * them names the content. Throws TypeError for what is not I-JSON: undefined, NaN, bigint, lone surrogates, and objects
 * that are not plain.
 */
export const canonicalJson = (value: unknown): string => {
  switch (typeof value) {
    case 'boolean':
      return value ? 'true' : 'false'
    case 'number':
      // RFC 8785 3.2.2.3: ECMAScript's own form, in which -0 is 0.
      if (!Number.isFinite(value)) throw new TypeError(`${value} has no JSON form`)
      return JSON.stringify(value)
    case 'string':
      return quote(value)
    case 'object':
      if (value === null) return 'null'
      if (Array.isArray(value)) return `[${Array.from(value, canonicalJson).join(',')}]`
      return canonicalObject(value)
    default:
      throw new TypeError(`a ${typeof value} has no JSON form`)
  }
}

const canonicalObject = (value: object): string => {
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== null && prototype !== Object.prototype) throw new TypeError('only plain objects have a JSON form')
  // The default order of sort() compares UTF-16 code units, as RFC 8785 3.2.3 wants it.
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
  return `{${members.map(([name, member]) => `${quote(name)}:${canonicalJson(member)}`).join(',')}}`
}

const quote = (text: string): string => {
  // RFC 8785 3.2.2.2: a lone surrogate ends it.
  if (!text.isWellFormed()) throw new TypeError('a string with a lone surrogate has no JSON form')
  return JSON.stringify(text)
}
