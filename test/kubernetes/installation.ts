/**
 * What overlays/mounted-keys makes of a node's file system, in a folder: Secrets where they are mounted, a disk for each
 * replica, and the programs of the containers with their environment. Only ports and addresses are this machine's.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, cp, mkdir, writeFile } from 'node:fs/promises'
import { get } from 'node:https'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

import { bare } from '../helpers/environment.ts'
import { freePort } from '../helpers/port.ts'
import { mainFile, putCommand } from '../helpers/run.ts'
import { type Json, type Manifest, manifests, podsOf, render } from './manifests.ts'

export interface Replica {
  /** Status of /readyz. */
  ready(): Promise<number>
  stop(): Promise<void>
}

export interface Installation {
  /** As the CronJob does. */
  migrate(): Promise<void>
  /** Types commands as whoever has followed the page so far, in one shell. Resolves to what they wrote. */
  type(...commands: readonly string[]): Promise<string>
  /** Rejects with what it says where it ends. */
  start(t: Teardown, name: string, isNew?: boolean): Promise<Replica>
}

interface Teardown {
  teardown(close: () => Promise<void>): void
}

interface Urls {
  readonly servingUrl: string
  readonly ownerUrl: string
}

const run = promisify(execFile)

/** `as` is what programs of the containers are started with, where they run as somebody else. */
export const install = async (
  folder: string,
  makeKeys: string,
  urls: Urls,
  as: readonly string[] = ['env'],
): Promise<Installation> => {
  const [somebody = '', ...being] = as
  const at = (...names: readonly string[]): string => join(folder, ...names)
  const secrets = at('run/secrets/chancery')
  await run('bash', ['-ceu', '-o', 'pipefail', makeKeys], { cwd: folder })
  await mkdir(secrets, { recursive: true })
  await cp(at('keys'), join(secrets, 'keys'), { recursive: true })
  const texts = { 'database/serving-url': urls.servingUrl, 'owner/owner-url': urls.ownerUrl }
  for (const [name, text] of Object.entries(texts)) await writeSecret(join(secrets, name), `${text}\n`)
  await mkdir(join(secrets, 'passphrase'))
  await cp(at('passphrase'), join(secrets, 'passphrase/passphrase'))
  const PATH = await putCommand(at('bin'))

  await writeFile(at('bin/kubectl'), kubectl(folder), { mode: 0o755 })
  const ports = new Map<string, number>()
  const rendered = await render(join(manifests, 'overlays/mounted-keys'))
  return {
    migrate: async () => {
      const { env } = containerOf(rendered, 'chancery-migrate', { folder, data: at('data-none') })
      await run(somebody, [...being, process.execPath, mainFile, 'migrate'], { env: { ...bare, ...env } })
    },
    type: async (...commands) => {
      const shell = { ...bare, PATH, HOME: folder }
      await writeFile(at('ports'), [...ports].map((pair) => `${pair.join(' ')}\n`).join(''))
      const here = `localhost:$(sed -n "s/^$pod //p" ports)`
      const { stdout } = await run(
        'bash',
        ['-ceu', '-o', 'pipefail', commands.join('\n').replaceAll('localhost:8443', here)],
        { cwd: folder, env: shell },
      )
      return stdout
    },
    start: async (t, name, isNew = false) => {
      const data = at(`data-${name}`)
      await mkdir(data, { recursive: true })
      const { env, prepare } = containerOf(rendered, 'chancery', { folder, data })
      await run(somebody, [...being, 'sh', '-euc', prepare])
      // The component new-replica, which the page says to take out after the first start.
      const { CHANCERY_ALLOW_UNSEEN_ROLL: yes = 'no', ...usual } = env
      const port = await freePort()
      ports.set(name, port)
      await writeFile(at(`env-${name}`), Object.entries(usual).map(exported).join(''))
      return startReplica(t, { as, port, env: isNew ? { ...usual, CHANCERY_ALLOW_UNSEEN_ROLL: yes } : usual })
    },
  }
}

const exported = ([name, value]: readonly [string, string]): string =>
  `export ${name}='${value.replaceAll("'", `'\\''`)}'\n`

const writeSecret = async (path: string, text: string): Promise<void> => {
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, text)
  await chmod(path, 0o400)
}

interface Roots {
  readonly folder: string
  readonly data: string
}

/** The environment of the container, and the script of the one before it, with the paths of here. */
const containerOf = (objects: readonly Manifest[], name: string, { folder, data }: Roots) => {
  const owner = objects.find(({ kind, metadata }) => /^(StatefulSet|CronJob)$/.test(kind) && metadata.name === name)
  const spec: Json = owner && podsOf(owner)[0]?.spec
  const settings = objects.find(
    ({ kind, metadata }) => kind === 'ConfigMap' && /^chancery-settings/.test(metadata.name),
  )
  const here = (text: string): string =>
    text.replaceAll('/run/secrets/', `${folder}/run/secrets/`).replaceAll('/data/', `${data}/`)
  const told = { ...settings?.['data'], ...named(spec.containers[0].env) }
  const env: Readonly<Record<string, string>> = Object.fromEntries(
    Object.entries<string>(told).map(([key, value]) => [key, here(value)]),
  )
  return { env, prepare: here(spec.initContainers?.[0].args.at(-1) ?? 'true') }
}

const named = (env: readonly Json[] = []): object => Object.fromEntries(env.map(({ name, value }) => [name, value]))

interface Starting {
  readonly as: readonly string[]
  readonly port: number
  readonly env: Readonly<Record<string, string>>
}

const startReplica = async (t: Teardown, { as: [somebody = '', ...being], port, env }: Starting): Promise<Replica> => {
  const publicPort = await freePort()
  const listens = {
    CHANCERY_LISTEN: `127.0.0.1:${port}`,
    CHANCERY_PUBLIC_LISTEN: `127.0.0.1:${publicPort}`,
  }
  const child: ChildProcess = spawn(somebody, [...being, process.execPath, mainFile, 'serve'], {
    env: { ...bare, ...env, ...listens },
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', (chunk) => {
      said += chunk
    })
  const ended = once(child, 'exit')
  const stop = async (): Promise<void> => {
    child.kill('SIGTERM')
    await ended
  }
  t.teardown(stop)
  while (!said.includes('Chancery serves at')) {
    if (child.exitCode !== null) throw new Error(said)
    await sleep(50)
  }
  return { stop, ready: () => statusOf(port) }
}

const statusOf = (port: number): Promise<number> =>
  new Promise((resolve, reject) => {
    get({ host: '127.0.0.1', port, path: '/readyz', rejectUnauthorized: false }, (answer) => {
      answer.resume()
      resolve(answer.statusCode ?? 0)
    }).once('error', reject)
  })

/**
 * What the page has kubectl do in a cluster, with what is here: commands of a pod in its own files, with its settings. `localhost:8443`
 * was led to the port of the pod that was named. What is applied is rendered; that pods are replaced by it is up to the test.
 */
const kubectl = (folder: string): string => `#!/bin/bash
set -eu
if [ "$1 $2" = 'apply -k' ]; then PATH=\${PATH#*:} exec kubectl kustomize "$3"; fi
[ "$1 $2" = '-n chancery-system' ] || exit 9
shift 2
case "$1" in
  exec)
    pod=$2
    [ "$3" = -- ] || exit 9
    shift 3
    . "${folder}/env-$pod"
    exec "\${@/#\\/data\\//${folder}/data-$pod/}" ;;
  delete) [ "$2 $3 $4" = 'pod --selector app.kubernetes.io/component=server' ] ;;
  rollout) [ "$2 $3" = 'status statefulset/chancery' ] ;;
  port-forward) ;;
  create) [ "$2 $3" = 'configmap chancery-root' ] && [ -s "\${4#--from-file=ca.crt=}" ] ;;
  *) exit 9 ;;
esac
`
