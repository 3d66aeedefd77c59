/** The only door to @kubernetes/client-node: where the API server is, and how to prove who we are. */
import { readFile } from 'node:fs/promises'
import type { RequestOptions } from 'node:https'
import { createSecureContext } from 'node:tls'

import { bufferFromFileOrString, type Cluster as ClusterEntry, KubeConfig, type User } from '@kubernetes/client-node'

import { trustFault } from '../../client/trust.ts'
import type { Access } from './client.ts'

export interface Cluster {
  /** Our own, where a pod or the context says so. */
  readonly namespace: string | undefined
  /** As it is now: the library reads files of tokens and certificates again, and runs what a kubeconfig names for them. */
  access(): Promise<Access>
}

/** From this kubeconfig; from the pod's service account where none is named. Throws the library's own errors. */
export const loadCluster = async (kubeconfig: string | undefined): Promise<Cluster> => {
  const config = new KubeConfig()
  if (kubeconfig === undefined) config.loadFromCluster()
  else config.loadFromFile(kubeconfig)
  const cluster = config.getCurrentCluster()
  if (!cluster) throw new Error('no cluster is named')
  // What the library makes of an environment that is not a pod's.
  if (cluster.server.includes('//undefined')) throw new Error('this is no pod of a cluster; name a kubeconfig')
  if (!URL.canParse(cluster.server) || new URL(cluster.server).protocol !== 'https:')
    throw new Error(`${cluster.server} is not like https://host:port`)
  if (cluster.skipTLSVerify) throw new Error('a cluster whose certificate is not verified cannot be served')
  if (cluster.proxyUrl !== undefined) throw new Error('a cluster behind a proxy cannot be served')
  const namespace = config.getContextObject(config.getCurrentContext())?.namespace ?? (await podNamespace(kubeconfig))
  assertCertificates(cluster, config.getCurrentUser())
  return { namespace, access: sharing(() => accessOf(config, cluster.server)) }
}

/** What is missing or unreadable at the start would fail each call, for ever. A token may come later. */
const assertCertificates = ({ caFile, caData }: ClusterEntry, user: User | null): void => {
  const ca = bufferFromFileOrString(caFile, caData)
  const fault = ca ? trustFault(ca.toString()) : undefined
  if (fault !== undefined) throw new Error(`${caFile ?? 'certificate-authority-data'} ${fault}`)
  const cert = bufferFromFileOrString(user?.certFile, user?.certData)
  const key = bufferFromFileOrString(user?.keyFile, user?.keyData)
  try {
    createSecureContext({ ...(cert && { cert }), ...(key && { key }) })
  } catch (error) {
    throw new Error(`the client certificate and its key cannot be used: ${(error as Error).message}`)
  }
}

/** Calls that come together share one look, so that a program of the kubeconfig that hangs runs once. */
const sharing = <T>(begin: () => Promise<T>): (() => Promise<T>) => {
  let underWay: Promise<T> | undefined
  return () =>
    (underWay ??= begin().finally(() => {
      underWay = undefined
    }))
}

const accessOf = async (config: KubeConfig, server: string): Promise<Access> => {
  const options: RequestOptions = {}
  await config.applyToHTTPSOptions(options)
  const { ca, cert, key, servername, headers = {}, auth } = options
  return {
    server,
    headers: {
      ...Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), String(value).trim()])),
      ...(typeof auth === 'string' && { authorization: `Basic ${Buffer.from(auth).toString('base64')}` }),
    },
    tls: {
      ...textOf('ca', ca),
      ...textOf('cert', cert),
      ...textOf('key', key),
      ...(servername !== undefined && { servername }),
    },
  }
}

const textOf = (name: string, value: unknown): Readonly<Record<string, string>> =>
  Buffer.isBuffer(value) || typeof value === 'string' ? { [name]: value.toString() } : {}

const podNamespace = (kubeconfig: string | undefined): Promise<string | undefined> =>
  kubeconfig === undefined
    ? readFile('/var/run/secrets/kubernetes.io/serviceaccount/namespace', 'utf8').then(
        (text) => text.trim(),
        () => undefined,
      )
    : Promise.resolve(undefined)
