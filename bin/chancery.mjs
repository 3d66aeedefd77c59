#!/usr/bin/env node
/** The `chancery` command from any folder: sets up what is missing, then runs it with the pinned Node. */
process.argv.splice(2, 0, 'chancery')
await import('../tools/setup.mjs')
