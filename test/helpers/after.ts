/** Runs once after all test files: stops their PostgreSQL, unless another run still uses it. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'

import { bringUpTestServer, testDataDir } from './database.ts'

if (existsSync(join(await testDataDir(), 'postgres', 'cluster', 'postmaster.pid'))) {
  const server = await bringUpTestServer()
  await server.stop()
}
