/** The form in which names are searched: DNS labels reversed, so that everything below a suffix is one range. */
import { type Name, parseSearched, wildcardOver } from '../x509/names.ts'

export const searchKey = ({ kind, value }: Name): string => (kind === 'dns' ? reversed(value) : value)

const reversed = (dns: string): string => dns.split('.').reverse().join('.')

export interface NameRange {
  readonly low: string
  /** Itself left out, unless it is `low`: then that one name is meant. */
  readonly high: string
  /** Of one DNS name: the wildcard name that covers it, as it is kept. */
  readonly wildcard?: string
}

/**
 * One name, as it is or with its kind before it (`dns:*.example.com` is that very name), or all below a suffix: labels are
 * reversed, so that these are one range (`com.example.` to `com.example/`).
 */
export const nameRange = (name: string): NameRange => {
  const wanted = name.toLowerCase()
  if (wanted.startsWith('*.')) return { low: `${reversed(wanted.slice(2))}.`, high: `${reversed(wanted.slice(2))}/` }
  const one = searchedName(name)
  const key = one ? searchKey(one) : ''
  const wildcard = one?.kind === 'dns' ? wildcardOver(one.value) : undefined
  return { low: key, high: key, ...(wildcard !== undefined && { wildcard: reversed(wildcard) }) }
}

export const isOneName = ({ low, high }: NameRange): boolean => low === high

/** As names are kept: the name itself, and the wildcard name by which a certificate is good for it as well. */
export const keysFor = ({ low, wildcard }: NameRange): readonly string[] =>
  wildcard === undefined ? [low] : [low, wildcard]

/** Nothing is found by what is none. */
const searchedName = (name: string): Name | undefined => {
  try {
    return parseSearched(name)
  } catch {
    return undefined
  }
}
