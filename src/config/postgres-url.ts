/** URLs of PostgreSQL, read as pg reads them: what is told of a database is told of the one that is opened. */
import { readFileOrPipe, readPrivateFile } from '../keys/private-file.ts'

/** A clause about the URL, without any of it; undefined where pg can read it. */
export const faultOfPostgresUrl = (text: string): string | undefined => {
  if (!/^postgres(ql)?:\/\//.test(text)) return notPostgres
  if (severalHosts.test(text))
    return 'names several hosts; name the one address that always leads to the server that takes writes'
  try {
    const { username, password, hostname, pathname } = parsePostgresUrl(text)
    for (const part of [username, password, hostname]) decodeURIComponent(part)
    decodeURI(pathname)
    return undefined
  } catch (error) {
    return error instanceof URIError ? 'has a % that begins no octet of UTF-8; write it as %25' : notPostgres
  }
}

/** An empty host is fine for PostgreSQL, but not for URL. */
export const parsePostgresUrl = (text: string): URL => new URL(withEscapes(text).replace('@/', '@localhost/'))

/** Where pg finds a % that begins no octet, each stands for itself that has no two decimal digits behind it. */
const withEscapes = (text: string): string =>
  / |%[^a-f0-9]|%[a-f0-9][^a-f0-9]/i.test(text) ? encodeURI(text).replace(/%25(\d\d)/g, '%$1') : text

const notPostgres = 'is not a postgresql:// URL (in a password / ? # are written as %2F %3F %23)'
/** libpq tries one after the other; pg would look for one host with a comma in its name. */
const severalHosts = /^[^/]*\/\/([^/?#]*@)?[^@/?#]*,[^@/?#]*(\/[^@?#]*)?([?#]|$)|[?&](host|port)=[^&]*(,|%2c)/i

/** Of the settings. */
interface UrlSource {
  readonly mode: 'development' | 'production'
  readonly database: { readonly url?: string; readonly urlFile?: string }
}

/**
 * What reads the URL again; undefined where it came from no file. It rejects where anything but the password is another
 * one: which database it is, and which role, is looked at by a start only.
 */
export const renewedUrl = ({ database: { url, urlFile }, mode }: UrlSource) =>
  url === undefined || urlFile === undefined
    ? undefined
    : async (): Promise<string> => {
        const octets = await (mode === 'production' ? readPrivateFile(urlFile) : readFileOrPipe(urlFile))
        const now = octets.toString('utf8').replace(/\r?\n$/, '')
        if (withoutPassword(now) === withoutPassword(url)) return now
        throw new Error(`${urlFile} has more than another password: restart with it.`)
      }

/** It stands before the host, or in the query; and may have an @ of its own. */
const withoutPassword = (text: string): string => {
  const url = parsePostgresUrl(text)
  url.password = ''
  url.searchParams.delete('password')
  return url.href
}
