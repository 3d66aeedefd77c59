/** `chancery serve` as a process of its own, for tests that kill it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { SecureContext } from 'node:tls'

import { bare } from './environment.ts'
import { mainFile } from './run.ts'

export interface InstanceOptions {
  readonly data: string
  readonly port: number
  readonly publicPort: number
  readonly servingUrl: string
  readonly ownerUrl: string
  /** Adds or changes settings. */
  readonly env?: Readonly<Record<string, string>>
  /** How many files it may have open, by `ulimit`. */
  readonly openFiles?: number
  /** Where its log goes instead, which is no output then. */
  readonly log?: number
}

export interface Instance {
  readonly pid: number
  /** Resolves when it answers /readyz with 200; rejects with its last lines when it has died. */
  ready(): Promise<void>
  signal(name: NodeJS.Signals): void
  exited: Promise<number | null>
  /** What it wrote. */
  output(): string
  /** Calls when it has written this, at once. */
  told(what: RegExp, then: () => void): void
}

export const startInstance = ({
  data,
  port,
  publicPort,
  servingUrl,
  ownerUrl,
  env: more = {},
  log,
  openFiles,
}: InstanceOptions): Instance => {
  const env = {
    ...bare,
    CHANCERY_DATA: data,
    CHANCERY_LISTEN: `127.0.0.1:${port}`,
    CHANCERY_PUBLIC_LISTEN: `127.0.0.1:${publicPort}`,
    CHANCERY_PUBLIC_URL: 'http://pki.test',
    CHANCERY_DATABASE_URL: servingUrl,
    CHANCERY_MIGRATION_URL: ownerUrl,
    CHANCERY_LOG_LEVEL: 'warn',
    // As short as the settings allow: then the reconciler's patience is 11.1 s, and a test need not take a minute.
    CHANCERY_REQUEST_DEADLINE: '1s',
    CHANCERY_SIGNING_DEADLINE: '100ms',
    ...more,
  }
  const command = [process.execPath, mainFile, 'serve']
  const limited =
    openFiles === undefined ? command : ['/bin/sh', '-c', `ulimit -n ${openFiles}; exec "$0" "$@"`, ...command]
  const [program = '', ...args] = limited
  const child = spawn(program, args, { env, stdio: ['ignore', log ?? 'pipe', 'pipe'] })
  const chunks: string[] = []
  const streams = [child.stdout, child.stderr]
  for (const stream of streams) stream?.setEncoding('utf8').on('data', (text: string) => chunks.push(text))
  // A test that hangs is ended without its teardown.
  const end = (): void => void child.kill('SIGKILL')
  process.once('exit', end)
  const exited = new Promise<number | null>((resolve) => child.once('exit', resolve))
  void exited.then(() => process.off('exit', end))
  return {
    pid: child.pid ?? -1,
    ready: () => untilReady({ data, port }, child, () => chunks.join('').slice(-2000)),
    signal: (name) => void child.kill(name),
    exited,
    output: () => chunks.join(''),
    told: (what, then) => {
      const look = (): void => {
        if (!what.test(chunks.join(''))) return
        for (const stream of streams) stream?.off('data', look)
        then()
      }
      for (const stream of streams) stream?.on('data', look)
    },
  }
}

const untilReady = async (
  { data, port }: { data: string; port: number },
  child: ChildProcess,
  output: () => string,
): Promise<void> => {
  const [{ get }, { createSecureContext }] = [await import('node:https'), await import('node:tls')]
  // Made once for each root: it is most of what a look takes.
  let known: { readonly ca: string; readonly context: SecureContext } | undefined
  const contextOf = (ca: string): SecureContext => {
    if (known?.ca !== ca) known = { ca, context: createSecureContext({ ca }) }
    return known.context
  }
  const once = (): Promise<number> =>
    new Promise((resolve) => {
      let ca: string
      try {
        ca = readFileSync(join(data, 'root.pem'), 'utf8')
      } catch {
        return resolve(0)
      }
      const secureContext = contextOf(ca)
      const options = { host: '127.0.0.1', port, path: '/readyz', secureContext, agent: false as const, timeout: 1000 }
      const call = get(options, (response) => {
        response.resume()
        resolve(response.statusCode ?? 0)
      })
      call.on('error', () => resolve(0))
      call.on('timeout', () => call.destroy())
    })
  for (const deadline = Date.now() + 30_000; ; ) {
    if ((await once()) === 200) return
    if (child.exitCode !== null || child.signalCode !== null)
      throw new Error(`the instance ended before it was ready:\n${output()}`)
    if (Date.now() > deadline) throw new Error(`the instance was not ready within 30 s:\n${output()}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
