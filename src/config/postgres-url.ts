/** URLs of PostgreSQL, read as pg reads them: what is told of a database is told of the one that is opened. */

/** Where a PostgreSQL URL leads, for people; without its password. */
export interface DatabasePlace {
  /** `host:port`, or the path of a Unix socket. */
  readonly address: string
  readonly database: string
  readonly role: string
}

/** A clause about the URL, without any of it; undefined where pg can read it. */
export const faultOfPostgresUrl = (text: string): string | undefined => {
  if (!/^postgres(ql)?:\/\//.test(text)) return notPostgres
  if (severalHosts.test(text))
    return 'names several hosts; name the one address that always leads to the server that takes writes'
  try {
    placeOf(text)
    decodeURIComponent(parsePostgresUrl(text).password)
    return undefined
  } catch (error) {
    return error instanceof URIError ? 'has a % that begins no octet of UTF-8; write it as %25' : notPostgres
  }
}

export const placeOf = (text: string): DatabasePlace => {
  const { hostname, port, pathname, searchParams } = parsePostgresUrl(text)
  const host = searchParams.get('host') ?? decodeURIComponent(hostname)
  const at = searchParams.get('port') ?? (port || '5432')
  const role = roleOf(text)
  return {
    address: host.startsWith('/') ? `${host}/.s.PGSQL.${at}` : `${host}:${at}`,
    // What of it is reserved in a URL stays an escape, to pg.
    database: decodeURI(pathname.slice(1)) || role,
    role,
  }
}

/** The role that a PostgreSQL URL connects as. Where it names none, as with peer authentication, it is the one that pg takes. */
export const roleOf = (text: string): string => {
  const url = parsePostgresUrl(text)
  const named = url.searchParams.get('user') ?? decodeURIComponent(url.username)
  return named || process.env['PGUSER'] || process.env['USER'] || ''
}

/** An empty host is fine for PostgreSQL, but not for URL. */
export const parsePostgresUrl = (text: string): URL => new URL(withEscapes(text).replace('@/', '@localhost/'))

/** Where pg finds a % that begins no octet, each stands for itself that has no two decimal digits behind it. */
const withEscapes = (text: string): string =>
  / |%[^a-f0-9]|%[a-f0-9][^a-f0-9]/i.test(text) ? encodeURI(text).replace(/%25(\d\d)/g, '%$1') : text

const notPostgres = 'is not a postgresql:// URL'
/** libpq tries one after the other; pg would look for one host with a comma in its name. */
const severalHosts = /^[^/]*\/\/([^/?#]*@)?[^@/?#]*,[^@/?#]*([/?#]|$)|[?&](host|port)=[^&]*(,|%2c)/i
