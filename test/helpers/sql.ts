/** SQL beside the service, as whoever the URL names: to see what is on record, and to do what no service does. */
import pg from 'pg'

interface Teardown {
  teardown(close: () => Promise<void>): unknown
}

/** A connection for as long as the test takes. */
export const openSql = async (t: Teardown, url: string): Promise<pg.Client> => {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  t.teardown(() => client.end())
  return client
}

/** One statement, on a connection of its own; resolves to its rows. */
export const askSql = async <Row extends object>(
  url: string,
  text: string,
  values: readonly unknown[] = [],
): Promise<readonly Row[]> => {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query<Row>(text, [...values])).rows
  } finally {
    await client.end()
  }
}
