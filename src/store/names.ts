/** The form in which names are searched: DNS labels reversed, so that everything below a suffix is one range. */
import { formatIp, parseIp } from '../x509/addresses.ts'
import type { Name } from '../x509/names.ts'

export const searchKey = ({ kind, value }: Name): string => (kind === 'dns' ? reversed(value) : value)

export const reversed = (dns: string): string => dns.split('.').reverse().join('.')

export interface NameRange {
  readonly low: string
  /** Itself left out, unless it is `low`: then that one name is meant. */
  readonly high: string
}

/** One name, or all below a suffix: labels are reversed, so that these are one range (`com.example.` to `com.example/`). */
export const nameRange = (name: string): NameRange => {
  const wanted = name.toLowerCase()
  if (wanted.startsWith('*.')) return { low: `${reversed(wanted.slice(2))}.`, high: `${reversed(wanted.slice(2))}/` }
  const key = exactKey(name)
  return { low: key, high: key }
}

/** The first of a certificate's names in the range, as it is kept; below a suffix there are DNS names only. '': none. */
export const firstName = (names: readonly Name[], { low, high }: NameRange): string => {
  let first = ''
  for (const name of names) {
    if (name.kind !== 'dns') continue
    const key = searchKey(name)
    if (key > low && key < high && (first === '' || key < first)) first = key
  }
  return first
}

/** A name in the normal form in which it is kept, whatever kind it is. */
const exactKey = (name: string): string => {
  const address = parseIp(name)
  if (address) return formatIp(address)
  if (/[:/]/.test(name)) return name
  const at = name.lastIndexOf('@')
  return at < 0 ? reversed(name.toLowerCase()) : name.slice(0, at) + name.slice(at).toLowerCase()
}
