/** The form in which names are searched: DNS labels reversed, so that everything below a suffix is one range. */
import type { Name } from '../x509/names.ts'

export const searchKey = ({ kind, value }: Name): string => (kind === 'dns' ? reversed(value) : value)

export const reversed = (dns: string): string => dns.split('.').reverse().join('.')
