/** What processes of tests are started with: nothing of a service, but Node's compiled code, which `npm start` has too. */
import { join } from 'node:path'

export const bare = {
  PATH: process.env['PATH'] ?? '',
  // Half of a command's time is reading our files as if for the first time.
  NODE_COMPILE_CACHE: process.env['NODE_COMPILE_CACHE'] ?? join(import.meta.dirname, '../../node_modules/.cache/node'),
} as const
