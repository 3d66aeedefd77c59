/** What is said to the server as a session starts; behind a transaction pooler all of it belongs on the role. */

/** Milliseconds; sent as start-up settings. No statement of the service takes longer by its design. */
export const sessionTimeouts = {
  statement_timeout: 10_000,
  lock_timeout: 5_000,
  idle_in_transaction_session_timeout: 10_000,
} as const

/**
 * Plans are kept as long as statistics are, and a table that had a page then may have thousands by now: reading it as a whole
 * was cheapest once, and is quadratic for the minute until autovacuum has looked again. Where there is an index it is used,
 * and in its order: a plan for any values takes a range to be short, and would make a bitmap of all of it for the few at its
 * beginning. Where there is none, the table is read at a cost of 10¹⁰, for which a server that has LLVM would compile the
 * statement first: 70 to 600 ms for the look at what lists are new, each second (measured, PostgreSQL 17 of Debian).
 */
export const keptPlans = '-c enable_seqscan=off -c enable_bitmapscan=off -c jit=off'
/**
 * What our SQL means, in statements and in the functions of the schema, whose text is read as they run: octets are written by
 * backslashes there, NULL stands in arrays, and names of tables are made of others.
 */
const meanings = {
  standard_conforming_strings: 'on',
  quote_all_identifiers: 'off',
  transform_null_equals: 'off',
  array_nulls: 'on',
} as const
const rowsOf = (settings: Readonly<Record<string, string>>): string =>
  Object.entries(settings)
    .map(([name, value]) => `('${name}', '${value}')`)
    .join(', ')
/** Rows of a `values`, by name and value. */
export const meaningRows = rowsOf(meanings)
/**
 * Where the last is another one no trigger runs, as where somebody has loaded a dump so: they guard the records, and keep what follows from
 * them. Only a superuser may say it, so that we look, and cannot set it.
 */
export const neededRows = rowsOf({ ...meanings, session_replication_role: 'origin' })
/**
 * The server, too, learns within a minute or so that we are gone: by its own default, a session whose end a cut has lost holds one
 * of its connections for two hours. Of sockets of a machine it makes nothing.
 */
const probes =
  '-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3 -c tcp_user_timeout=60000'
/**
 * Whatever the role or the database says: times in any other form are turned down (`types.ts`), a day has 24 hours, since limits of a
 * day end at UTC's midnight; the tables, with all that guards them, are in one schema; a statement waits for those before it, where a
 * stricter isolation turns it down; rows that a policy would hide are an error, since what is revoked would pass for valid; and what
 * is idle for long is ours to end.
 */
export const ourWords = [
  '-c datestyle=ISO -c timezone=UTC -c search_path=public -c default_transaction_isolation=read\\ committed',
  `-c row_security=off -c idle_session_timeout=0 ${probes}`,
  ...Object.entries(meanings).map(([name, value]) => `-c ${name}=${value}`),
].join(' ')
export const genericPlans = `${ourWords} ${keptPlans} -c plan_cache_mode=force_generic_plan`
/**
 * What no start-up setting can say. PostgreSQL has `transaction_timeout` from 17 on. And what is handed out must be on a disk first,
 * whatever role, database or a reload of the server's settings says while we run; what waits for a standby as well, or for none, is
 * its operator's to choose.
 */
export const firstWords = {
  text: `
    select set_config('transaction_timeout', '0', false) where current_setting('transaction_timeout', true) <> '0'
    union all
    select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') in ('on', 'off')`,
}
