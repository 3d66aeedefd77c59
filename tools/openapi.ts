/** Writes openapi/chancery.json from the routes; `npm run openapi`. The tests compare the file with what this makes. */
import { writeFile } from 'node:fs/promises'

import { Registry } from 'prom-client'

import { openApp } from '../src/http/app.ts'
import type { HttpDeps } from '../src/http/deps.ts'
import { openMetrics } from '../src/metrics.ts'

/** The text of the file: the same routes make the same octets. */
export const openapiText = async (): Promise<string> => {
  const app = await openApp(undecided)
  try {
    return `${JSON.stringify(app.swagger(), null, 2)}\n`
  } finally {
    await app.close()
  }
}

/** Describing calls nothing; whatever is called all the same fails loudly. */
const absent = <T extends object>(): T =>
  new Proxy({} as T, {
    get: (_target, property) => {
      throw new Error(`Describing must not use ${String(property)}.`)
    },
  })

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

const undecided: HttpDeps = {
  issuance: absent(),
  policies: absent(),
  access: absent(),
  accesses: absent(),
  identities: absent(),
  principalLimits: absent(),
  addressLimits: { requestsPerSecond: 1, concurrent: 1, failedAuthentications: 1 },
  proxies: { networks: [], header: 'x-forwarded-for' },
  replicas: () => 1,
  providers: absent(),
  keysFault: absent(),
  renewalInfos: () => Promise.reject(new Error('Describing must not read.')),
  records: absent(),
  issuerLife: absent(),
  revocations: absent(),
  crlImports: absent(),
  massRevocations: absent(),
  approvals: absent(),
  checkpoints: absent(),
  tiles: absent(),
  health: absent(),
  recordRefusal: () => Promise.reject(new Error('Describing must not refuse.')),
  metrics: openMetrics(new Registry()),
  log: silent,
  clock: () => new Date(0),
  newId: () => '',
  limits: { queue: 1, connections: 1 },
}

if (import.meta.main) {
  await writeFile(new URL('../openapi/chancery.json', import.meta.url), await openapiText())
}
