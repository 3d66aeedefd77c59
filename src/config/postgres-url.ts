/** URLs of PostgreSQL, read as pg reads them: what is told of a database is told of the one that is opened. */

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
