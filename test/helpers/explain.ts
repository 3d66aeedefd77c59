/** How PostgreSQL carries out a statement as the service sends it. */
import pg from 'pg'

import type { Statement } from '../../src/db/database.ts'

/**
 * `explain (analyze)` in sessions with the settings of the service, line by line: by a plan for these values, or for any. What is
 * explained with parameters is always planned for their values, so the statement is prepared and executed by name.
 */
export const openExplaining = async (connectionString: string) => {
  const open = async (mode: string): Promise<pg.Client> => {
    const options = `-c enable_seqscan=off -c enable_bitmapscan=off -c plan_cache_mode=${mode}`
    const client = new pg.Client({ connectionString, options })
    await client.connect()
    return client
  }
  const custom = await open('force_custom_plan')
  const generic = await open('force_generic_plan')
  return {
    explain: async (
      { text }: Statement,
      values: readonly unknown[],
      { isGeneric = false, options = 'analyze' } = {},
    ): Promise<readonly string[]> => {
      const client = isGeneric ? generic : custom
      await client.query(`prepare explained as ${text}`)
      const given = values.length === 0 ? '' : `(${values.map(literalOf).join(', ')})`
      try {
        const { rows } = await client.query<{ 'QUERY PLAN': string }>(`explain (${options}) execute explained${given}`)
        return rows.map((row) => row['QUERY PLAN'])
      } finally {
        await client.query('deallocate explained')
      }
    },
    close: async () => void (await Promise.all([custom.end(), generic.end()])),
  }
}

const literalOf = (value: unknown): string => {
  if (value === null || value === undefined) return 'null'
  if (Buffer.isBuffer(value)) return `'\\x${value.toString('hex')}'`
  return pg.escapeLiteral(value instanceof Date ? value.toISOString() : String(value))
}
