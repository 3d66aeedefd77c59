/** How PostgreSQL carries out a statement as the service sends it. */
import pg from 'pg'

import type { Statement } from '../../src/db/database.ts'

/**
 * `explain (analyze)` in a session with the settings of the service, line by line. What is explained with parameters is always
 * planned for their values, so the statement is prepared and executed by name.
 */
export const openExplaining = async (connectionString: string) => {
  const options = '-c enable_seqscan=off -c enable_bitmapscan=off -c plan_cache_mode=force_custom_plan'
  const client = new pg.Client({ connectionString, options })
  await client.connect()
  return {
    explain: async (
      { text }: Statement,
      values: readonly unknown[],
      { options = 'analyze' } = {},
    ): Promise<readonly string[]> => {
      await client.query(`prepare explained as ${text}`)
      const given = values.length === 0 ? '' : `(${values.map(literalOf).join(', ')})`
      try {
        const { rows } = await client.query<{ 'QUERY PLAN': string }>(`explain (${options}) execute explained${given}`)
        return rows.map((row) => row['QUERY PLAN'])
      } finally {
        await client.query('deallocate explained')
      }
    },
    close: async () => client.end(),
  }
}

const literalOf = (value: unknown): string => {
  if (value === null || value === undefined) return 'null'
  if (Buffer.isBuffer(value)) return `'\\x${value.toString('hex')}'`
  return pg.escapeLiteral(value instanceof Date ? value.toISOString() : String(value))
}
