/** Chancery as `npm start` runs it: a process of its own, the default settings, its log in a file. */

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import { freePort } from '../../test/helpers/port.ts'
import { countBy, type DatabaseUrls, type Place } from '../place.ts'
import { start, untilReady } from '../process.ts'
import { call } from '../request.ts'
import { assertCertificate } from '../sample.ts'
import type { SampleRequest, Target } from './target.ts'

export interface ChanceryOptions {
  readonly place: Place
  readonly sample: SampleRequest
  readonly nodeFlags?: readonly string[]
  readonly name?: string
  readonly title?: string
  /** Another replica over the database and data folder of this one. */
  readonly beside?: Target
  /** Adds or changes settings. */
  readonly env?: Readonly<Record<string, string>>
  /** Where its sources are, if not here. */
  readonly root?: string
}

export const openChancery = async ({
  place,
  sample,
  nodeFlags = [],
  name = 'chancery',
  title = 'Chancery',
  beside,
  env = {},
  root: sources = here,
}: ChanceryOptions): Promise<Target> => {
  const database = beside?.database ?? (await place.createDatabase(name))
  const data = beside?.dataDir ?? (await place.makeFolder(name))
  const [port, publicPort] = [await freePort(), await freePort()]
  const url = `https://127.0.0.1:${port}`
  const program = await start({
    command: process.execPath,
    // As in tools/setup.mjs.
    args: [
      '--disable-proto=delete',
      '--disable-sigusr1',
      '--max-semi-space-size=12',
      ...nodeFlags,
      join(sources, 'src/main.ts'),
      'serve',
    ],
    env: { ...environmentOf({ data, port, publicPort, database }), ...env },
    cwd: place.folder,
    log: join(place.folder, `${name}.log`),
  })
  const ca = (): Promise<string> => readFile(join(data, 'root.pem'), 'utf8')
  await untilReady(program, async () => (await call({ url: `${url}/readyz`, ca: await ca() })).status === 200)
  const token = (await readFile(join(data, 'admin.token'), 'utf8')).trim()
  const issuer = await readFile(join(data, 'bundles', 'default.pem'), 'utf8')
  const root = await ca()
  const authorization = { authorization: `Bearer ${token}` }
  return {
    name,
    title,
    version: '0.1.0',
    url: `${url}/v1/certificates`,
    ca: root,
    headers: { ...authorization, 'content-type': 'application/json' },
    body: JSON.stringify({ csr: sample.pem, profile: 'server' }),
    pid: program.pid,
    publicUrl: `http://127.0.0.1:${publicPort}`,
    dataDir: data,
    database,
    assertIssued: (status, text) => {
      if (status !== 201) throw new Error(`Chancery answers ${status}: ${text}`)
      assertCertificate(JSON.parse(text).certificate, sample.name, issuer)
    },
    recorded: () => countBy(database.superuserUrl, 'select count(*) from certificates'),
    metrics: async () => (await call({ url: `${url}/metrics`, ca: root, headers: authorization })).text,
    close: () => program.stop(),
  }
}

/** The same server, each request with an Idempotency-Key of its own: one look-up more, and a unique index to keep. */
export const withKeys = (target: Target): Target => ({
  ...target,
  name: `${target.name}-keys`,
  title: 'Chancery, with Idempotency-Key',
  keyed: true,
  close: async () => {},
})

/**
 * The same server asked for less, to see what the parts of an issuance cost it: HTTPS and Fastify alone, then everything
 * but records, signature and own check.
 */
export const partsOf = (target: Target): readonly Target[] => {
  const { recorded: _, database: __, ...rest } = target
  const part = { ...rest, close: async () => {} }
  const expect = (status: number): void => {
    if (status !== 200) throw new Error(`Chancery answers ${status}`)
  }
  return [
    {
      ...part,
      name: 'chancery-livez',
      title: 'Chancery, GET /livez',
      url: target.url.replace('/v1/certificates', '/livez'),
      method: 'GET',
      // As a probe asks: whoever brings credentials is counted against the bound of their address.
      headers: {},
      body: '',
      assertIssued: expect,
    },
    {
      ...part,
      name: 'chancery-explain',
      title: 'Chancery, dry run',
      url: `${target.url}?dryRun=true`,
      assertIssued: expect,
    },
  ]
}

const environmentOf = ({
  data,
  port,
  publicPort,
  database,
}: {
  data: string
  port: number
  publicPort: number
  database: DatabaseUrls
}): Record<string, string> => ({
  // As in tools/setup.mjs, which starts us as well.
  NODE_COMPILE_CACHE: process.env['NODE_COMPILE_CACHE'] ?? '',
  MALLOC_ARENA_MAX: '2',
  CHANCERY_DATA: data,
  CHANCERY_LISTEN: `127.0.0.1:${port}`,
  CHANCERY_PUBLIC_LISTEN: `127.0.0.1:${publicPort}`,
  CHANCERY_DATABASE_URL: database.servingUrl,
  CHANCERY_MIGRATION_URL: database.ownerUrl,
})

const here = join(import.meta.dirname, '..', '..')
