/**
 * `npm run bench -- kubernetes`: CertificateRequests that come all at once, from approved to issued. Chancery and the
 * controller are processes of their own, as they run in a cluster; the API server is the double of the tests, in this one,
 * whose part of the processor is in the figures.
 */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { type Cluster, openCluster } from '../test/kubernetes/cluster.ts'
import { manifests, rights } from '../test/kubernetes/running.ts'
import { type Tree, textAt, treeAt } from '../test/kubernetes/values.ts'
import { encodeKept, type Outcome } from './keep.ts'
import { describeMachine } from './machine.ts'
import { readMemory } from './memory.ts'
import type { Options } from './options.ts'
import type { Place } from './place.ts'
import { type Started, start } from './process.ts'
import { machineLines } from './report.ts'
import { call } from './request.ts'
import { makeSample } from './sample.ts'
import { toMarkdown } from './table.ts'
import { openChancery } from './targets/chancery.ts'
import type { Target } from './targets/target.ts'
import { tell } from './tell.ts'

interface Round {
  /** From the first that was created to the last that was issued, seconds. */
  readonly seconds: number
  /** Of the controller, MiB, the most that was seen. */
  readonly mebibytes: number
  /** Status writes by the controller. */
  readonly writes: number
  /** In the records of Chancery, that were not there before. */
  readonly certificates: number
}

export const benchKubernetes = async (options: Options, place: Place): Promise<Outcome> => {
  const at = new Date().toISOString()
  const count = options.certificates || 1_000
  const machine = await describeMachine(place.folder, await place.createDatabase('machine'), 'node')
  const chancery = await openChancery({ place, sample: await makeSample(place.folder) })
  const closing: (() => Promise<unknown>)[] = [chancery.close]
  try {
    const cluster = await openCluster({ teardown: (close) => void closing.push(close) }, { definitions, rbac: rights })
    const controller = await startController(place, cluster, chancery)
    closing.push(controller.stop)
    const rounds: Round[] = []
    for (let round = 0; round < options.rounds; round += 1) {
      rounds.push(await measure({ cluster, chancery, controller, count, round }))
      tell(`${count} requests: ${rounds.at(-1)?.seconds.toFixed(2)} s`)
    }
    return {
      at,
      suffix: '-kubernetes',
      json: encodeKept({ at, machine, options, count, rounds }),
      report: [
        `# Benchmark of the controller of ${at.slice(0, 16).replace('T', ' ')} UTC`,
        `${machineLines({ machine, rows: [] })}\nLoad of the machine before: ${machine.loadBefore.toFixed(2)}.`,
        `## ${count} CertificateRequests at once (bound: 10 s for 1,000, one write and one certificate each)`,
        toMarkdown(
          ['round', 's', 'requests/s', 'controller MiB', 'status writes', 'certificates'],
          rounds.map(({ seconds, mebibytes, writes, certificates }, i) => [
            ...[i + 1, seconds.toFixed(2), Math.round(count / seconds), Math.round(mebibytes), writes, certificates],
          ]),
        ),
      ].join('\n\n'),
      isFaulty: rounds.some(({ writes, certificates }) => writes > count || certificates !== count),
    }
  } finally {
    for (const close of closing.reverse()) await close()
  }
}

interface Measuring {
  readonly cluster: Cluster
  readonly chancery: Target
  readonly controller: Started
  readonly count: number
  readonly round: number
}

const measure = async ({ cluster, chancery, controller, count, round }: Measuring): Promise<Round> => {
  const { store } = cluster.double
  const issuer = { kind: 'ChanceryIssuer', name: 'default' }
  const before = { writes: statusWrites(cluster), certificates: (await chancery.recorded?.()) ?? 0 }
  let mebibytes = 0
  const watching = setInterval(() => {
    mebibytes = Math.max(mebibytes, readMemory(controller.pid, undefined, new Set()).service)
  }, 250)
  let left = count
  const all = Promise.withResolvers<void>()
  const stop = store.follow(({ kind, object }) => {
    const isIssued = kind.startsWith('certificaterequests.') && textAt(object, 'status', 'certificate') !== ''
    if (isIssued && --left === 0) all.resolve()
  })
  const ended = controller.exited.then(() => Promise.reject(new Error('the controller has ended')))
  const requests = Array.from({ length: count }, (_, i) => `r${round}-${i}`)
  const begun = performance.now()
  for (const name of requests) {
    const made = await cluster.certManager.create({ name, issuer, names: [`${name}.example.com`] })
    await cluster.certManager.approve(made)
  }
  await Promise.race([all.promise, ended])
  const seconds = (performance.now() - begun) / 1_000
  stop()
  clearInterval(watching)
  return {
    ...{ seconds, mebibytes, writes: statusWrites(cluster) - before.writes },
    certificates: ((await chancery.recorded?.()) ?? 0) - before.certificates,
  }
}

const statusWrites = ({ writes }: Cluster): number =>
  writes.filter(({ actor, resource }) => actor.includes('chancery') && resource === 'certificaterequests').length

const startController = async (place: Place, cluster: Cluster, chancery: Target): Promise<Started> => {
  const post = async (path: string, body: object): Promise<Tree> => {
    const url = new URL(path, chancery.url).href
    const sent = { url, ca: chancery.ca, method: 'POST', headers: chancery.headers, body: JSON.stringify(body) }
    const { status, text } = await call(sent)
    if (status >= 300) throw new Error(`${path}: ${text}`)
    return treeAt(JSON.parse(text))
  }
  await post('/v1/principals', { name: 'cluster' })
  await post('/v1/grants', { principal: 'cluster', role: 'requester', profiles: ['server'], onBehalfOf: {} })
  const { secret } = await post('/v1/tokens', { principal: 'cluster', label: 'bench' })
  const base64 = (text: string): string => Buffer.from(text).toString('base64')
  await cluster.apply({
    ...{ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'chancery', namespace: 'team-a' } },
    data: { token: base64(String(secret)) },
  })
  await cluster.apply({
    ...{
      apiVersion: 'chancery.dev/v1alpha1',
      kind: 'ChanceryIssuer',
      metadata: { name: 'default', namespace: 'team-a' },
    },
    spec: {
      ...{ url: new URL(chancery.url).origin, caBundle: base64(chancery.ca), profile: 'server' },
      auth: { tokenSecretRef: { name: 'chancery' } },
    },
  })
  cluster.kubeconfig(join(place.folder, 'kubeconfig'), 'chancery-system/chancery-controller', { expiresIn: 86_400 })
  const settings = join(place.folder, 'controller.yaml')
  await writeFile(settings, 'kubeconfig: kubeconfig\nlisten: 127.0.0.1:0\n')
  const controller = await start({
    command: process.execPath,
    args: [join(import.meta.dirname, '../src/main.ts'), 'controller', settings],
    cwd: place.folder,
    log: join(place.folder, 'controller.log'),
  })
  const isReady = (issuer: Tree | undefined): boolean => JSON.stringify(issuer ?? {}).includes('"Checked"')
  await Promise.race([
    cluster.until('chanceryissuers', { namespace: 'team-a', name: 'default' }, isReady),
    controller.exited.then(async () => Promise.reject(new Error(await controller.lastWords()))),
  ])
  return controller
}

const definitions = manifests('crds/chanceryissuers', 'crds/chanceryclusterissuers')
