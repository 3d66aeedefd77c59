/** Media types, both ways: what a call takes (an exact list, incident 54) and what it gives (RFC 9110 12.5.1). */
import { Problem } from '../errors.ts'

export type MediaType =
  | 'application/json'
  | 'application/yaml'
  | 'application/pkcs10'
  | 'application/x-pem-file'
  | 'application/pem-certificate-chain'
  | 'application/pkix-cert'
  | 'application/jose'
  | 'application/ocsp-request'
  | 'application/x-ndjson'
  | 'text/csv'

/** Every spelling of Content-Type that a call takes: the type alone, or with the charset that it has anyway. */
export const acceptedSpellings = (types: readonly MediaType[]): ReadonlySet<string> =>
  new Set(
    types.flatMap((type) => [type, ...(textTypes.has(type) ? charsets.map((charset) => `${type}${charset}`) : [])]),
  )

/** Throws 415 unless the header is, to the letter but for case, one of the spellings. */
export const assertMediaType = (header: string | undefined, spellings: ReadonlySet<string>): void => {
  if (header !== undefined && (spellings.has(header) || (header.length < 64 && spellings.has(header.toLowerCase()))))
    return
  throw new Problem('request.media_type', wordsFor(header, spellings))
}

const wordsFor = (header: string | undefined, spellings: ReadonlySet<string>): string => {
  if (spellings.size === 0) return 'This call takes no body.'
  // By no pattern for the blanks as well: of 16 KiB of them it would look at the rest from each.
  const [written = ''] = header?.split(';', 1) ?? []
  const type = written.trimEnd().toLowerCase()
  if (!spellings.has(type)) {
    const types = [...spellings].filter((spelling) => !spelling.includes(';'))
    return `Content-Type must be ${types.join(' or ')}.`
  }
  return `Content-Type ${type} takes no parameter${spellings.has(`${type};charset=utf-8`) ? ' but charset=utf-8' : ''}.`
}

/**
 * The first of `offered` with the highest quality in Accept; the first of all when nothing is asked for. Throws 406.
 * Parameters other than `q` are ignored: no representation here has any.
 */
export const negotiate = <T extends MediaType>(accept: string | undefined, offered: readonly [T, ...T[]]): T => {
  const [first] = offered
  if (accept === undefined || accept === '*/*' || accept === first) return first
  const ranges = accept.slice(0, maxAccept).split(',', maxRanges).map(readRange)
  let best: T | undefined
  let quality = 0
  for (const type of offered) {
    const q = qualityOf(type, ranges)
    if (q > quality) [best, quality] = [type, q]
  }
  if (best === undefined) throw new Problem('request.not_acceptable', `This call gives ${offered.join(' or ')}.`)
  return best
}

interface Range {
  readonly range: string
  readonly q: number
}

const readRange = (text: string): Range => {
  const [range = '', ...parameters] = text.split(';').map((part) => part.trim().toLowerCase())
  const weight = parameters.find((parameter) => parameter.startsWith('q='))
  return { range, q: weight === undefined ? 1 : readWeight(weight.slice(2)) }
}

/** RFC 9110 12.4.2; without the leading zero as well, as `java.net` writes it. What is no weight is none. */
const readWeight = (text: string): number => (/^(0?\.\d{1,3}|0\.?|1(\.0{0,3})?)$/.test(text) ? Number(text) : 0)

/** The most specific range that matches a type decides its quality (RFC 9110 12.5.1). */
const qualityOf = (type: MediaType, ranges: readonly Range[]): number => {
  const family = `${type.slice(0, type.indexOf('/'))}/*`
  for (const wanted of [type, family, '*/*']) {
    const range = ranges.find((candidate) => candidate.range === wanted)
    if (range) return range.q
  }
  return 0
}

const textTypes: ReadonlySet<MediaType> = new Set(['application/json', 'application/yaml', 'application/x-pem-file'])
/** A value in quotes is the same (RFC 9110 5.6.6). */
const charsets = ['; charset=utf-8', ';charset=utf-8', '; charset="utf-8"', ';charset="utf-8"']
const maxAccept = 1_024
const maxRanges = 32
