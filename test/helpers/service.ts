/** The whole service on a database and a data folder of its own, built by the function that builds the real one. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { Agent, request as httpsRequest } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { type Serving, serve } from '../../src/cli/serve.ts'
import { type Config, loadConfig } from '../../src/config/config.ts'
import { openTestDatabase, type TestDatabase } from './database.ts'
import { assertDescribed, assertMembers, assertNext, assertPointers, assertShape } from './described.ts'
import { bare } from './environment.ts'
import { quiet } from './log.ts'

export interface TestService {
  readonly config: Config
  readonly database: TestDatabase
  readonly service: Serving['service']
  /** `https://127.0.0.1:<port>` */
  readonly url: string
  readonly publicUrl: string
  /** PEM of the trust anchor. */
  readonly ca: string
  readonly adminToken: string
  request(method: string, path: string, options?: RequestOptions): Promise<Answer>
  close(): Promise<void>
}

export interface RequestOptions {
  /** null: none at all. Default: the first administrator's. */
  readonly token?: string | null
  readonly headers?: Readonly<Record<string, string>>
  /** A Buffer or string goes as it is; anything else as JSON. */
  readonly body?: unknown
}

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>
  readonly text: string
  readonly bytes: Buffer
  // biome-ignore lint/suspicious/noExplicitAny: the shape is what the tests assert.
  readonly json: any
}

interface Teardown {
  teardown(close: () => Promise<void>): void
}

/**
 * `env` adds or changes settings; `beside` is another replica, whose database and data folder this one shares, and which
 * is closed later. Takes about a third of a second.
 */
export const openTestService = async (
  t: Teardown,
  env: Readonly<Record<string, string>> = {},
  beside?: { readonly config: Pick<Config, 'dataDir'>; readonly database: TestDatabase },
): Promise<TestService> => {
  const database = beside?.database ?? (await openTestDatabase({ teardown: () => {} }))
  const data = beside?.config.dataDir ?? (await mkdtemp(join(tmpdir(), 'chancery-test-')))
  const config = await loadConfig({
    ...bare,
    CHANCERY_DATA: data,
    CHANCERY_LISTEN: '127.0.0.1:0',
    CHANCERY_PUBLIC_LISTEN: '127.0.0.1:0',
    CHANCERY_PUBLIC_URL: 'http://pki.test',
    CHANCERY_DATABASE_URL: database.servingUrl,
    CHANCERY_MIGRATION_URL: database.ownerUrl,
    // Tests fail to authenticate all the time, and from one address.
    CHANCERY_LIMIT_FAILED_AUTHENTICATIONS: '1000000',
    ...env,
  })
  const { service, addresses, close } = await serve(config, quiet)
  const ca = await readFile(join(data, 'root.pem'), 'utf8')
  const adminToken = (await readFile(join(data, 'admin.token'), 'utf8')).trim()
  const agent = new Agent({ keepAlive: true, ca })
  let open = true
  const closeAll = async (): Promise<void> => {
    if (!open) return
    open = false
    agent.destroy()
    await close()
    if (beside) return
    await database.close()
    await rm(data, { recursive: true, force: true })
  }
  t.teardown(closeAll)
  const request: TestService['request'] = (method, path, options = {}) =>
    send({ url: new URL(path, addresses.api), agent, method }, { token: adminToken, ...options })
  return {
    config,
    database,
    service,
    url: addresses.api,
    publicUrl: addresses.public,
    ca,
    adminToken,
    request,
    close: closeAll,
  }
}

/** Without a token none is sent. Rejects for an answer that the description of the API does not have. */
export const send = (
  { url, agent, method }: { url: URL; agent: Agent; method: string },
  { token, headers = {}, body }: RequestOptions,
): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const raw = body === undefined || typeof body === 'string' || Buffer.isBuffer(body)
    const payload = raw ? (body as string | Buffer | undefined) : JSON.stringify(body)
    const call = httpsRequest(url, {
      agent,
      method,
      headers: {
        ...(token && { authorization: `Bearer ${token}` }),
        ...(!raw && { 'content-type': 'application/json' }),
        ...(payload !== undefined && { 'content-length': String(Buffer.byteLength(payload)) }),
        ...headers,
      },
    })
    call.on('response', (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('error', reject)
      response.on('end', () => {
        const bytes = Buffer.concat(chunks)
        const text = bytes.toString('utf8')
        const isJson = response.headers['content-type']?.includes('json') ?? false
        const json = isJson && text !== '' ? parse(text) : undefined
        try {
          assertDescribed(method, url.pathname, response.statusCode ?? 0, response.headers)
          const answered = { method, path: url.pathname, status: response.statusCode ?? 0, fields: response.headers }
          if (text !== '') assertShape(answered, json)
          if (response.headers['content-type'] === 'application/problem+json' && json) assertMembers(json)
          assertPointers(json)
          assertNext(json)
        } catch (error) {
          return reject(error)
        }
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          bytes,
          text,
          json,
        })
      })
    })
    call.on('error', reject)
    call.end(payload)
  })

/** NDJSON also says json; then there is no one value. */
const parse = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
