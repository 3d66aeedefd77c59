/** The only door to @kubernetes/client-node: where the API server is, and how to prove who we are. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { RequestOptions } from 'node:https'
import { dirname, resolve } from 'node:path'
import { createSecureContext } from 'node:tls'

import { bufferFromFileOrString, type Cluster as ClusterEntry, KubeConfig, type User } from '@kubernetes/client-node'
import { parseDocument } from 'yaml'

import { trustFault } from '../../client/trust.ts'
import type { Access } from './client.ts'
import { boundedTo, type RunProgram } from './exec-plugins.ts'

export interface Cluster {
  /** Our own, where a pod or the context says so. */
  readonly namespace: string | undefined
  /** As it is now: the library reads files of tokens and certificates again, and runs what a kubeconfig names for them. */
  access(): Promise<Access>
}

/** From this kubeconfig; from the pod's service account where none is named. Throws the library's own errors. */
export const loadCluster = async (kubeconfig: string | undefined, { programMs = 60_000 } = {}): Promise<Cluster> => {
  const config = boundPrograms(new KubeConfig(), programMs)
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
  const user = config.getCurrentUser()
  assertEachOnce(cluster, user)
  assertCertificates(cluster, user)
  // That of a pod the library keeps for a minute by the clock of the machine, which may be set back.
  const ofPod: string | undefined = user?.authProvider?.config?.tokenFile
  const tokenFile = ofPod ?? (kubeconfig === undefined ? undefined : await tokenFileOf(kubeconfig, user?.name))
  assertOneMethod(user, tokenFile)
  return { namespace, access: sharing(() => accessOf(config, cluster.server, tokenFile)) }
}

/** As kubectl has it: the library would take the file without a word, where the documentation of client-go has the data win. */
const assertEachOnce = ({ caFile, caData }: ClusterEntry, user: User | null): void => {
  const { certFile, certData, keyFile, keyData } = user ?? {}
  const named = [
    ['certificate-authority', caFile, caData],
    ['client-certificate', certFile, certData],
    ['client-key', keyFile, keyData],
  ] as const
  const twice = named.find(([, file, data]) => file && data)
  if (twice) throw new Error(`${twice[0]} and ${twice[0]}-data are both there; take out the one that is not meant`)
}

/** As kubectl has it: a call has room for one of them, and the file does not say which is meant. */
const assertOneMethod = (user: User | null, tokenFile: string | undefined): void => {
  const { token, username, password } = user ?? {}
  if ((token || tokenFile) && (username || password))
    throw new Error('a token and a username or password are both there; take out what is not meant')
}

/** As kubectl has it: what is missing or no certificate at the start would fail each call, for ever. A token may come later. */
const assertCertificates = ({ caFile, caData }: ClusterEntry, user: User | null): void => {
  const ca = bufferFromFileOrString(caFile, caData)
  const fault = ca ? trustFault(ca.toString()) : undefined
  if (fault !== undefined) throw new Error(`${caFile ?? 'certificate-authority-data'} ${fault}`)
  const cert = bufferFromFileOrString(user?.certFile, user?.certData)
  const key = bufferFromFileOrString(user?.keyFile, user?.keyData)
  try {
    createSecureContext({ ...(cert && { cert }), ...(key && { key }) })
    if (cert) assertPair(cert, key)
  } catch (error) {
    throw new Error(`the client certificate and its key cannot be used: ${(error as Error).message}`)
  }
}

/** Where the key is missing or of another kind, OpenSSL shows nothing, and whoever shows nothing is somebody else without a word. */
const assertPair = (cert: Buffer, key: Buffer | null): void => {
  if (!key) throw new Error('there is no key')
  if (!new X509Certificate(cert).checkPrivateKey(createPrivateKey(key)))
    throw new Error('the key is of another certificate')
}

/** The library waits for a program for ever, and has no setting for it. */
const boundPrograms = (config: KubeConfig, programMs: number): KubeConfig => {
  const { authenticators } = config as unknown as { readonly authenticators: readonly object[] }
  const runners = authenticators.filter((one): one is { execFn: RunProgram } => 'execFn' in one)
  if (runners.length === 0) throw new Error('the library runs programs in another way than it did')
  for (const runner of runners) runner.execFn = boundedTo(programMs)
  return config
}

/** If each call that gives up a program that hangs began another, they would fill the machine: all wait for the one under way. */
const sharing = <T>(begin: () => Promise<T>): (() => Promise<T>) => {
  let underWay: Promise<T> | undefined
  return () => {
    if (underWay) return underWay
    const begun = begin()
    underWay = begun
    const end = (): void => {
      underWay = undefined
    }
    begun.then(end, end)
    return begun
  }
}

/**
 * The library passes over a `tokenFile`, and whoever shows nothing is somebody else without a word. As kubectl has it, a path is relative
 * to the kubeconfig.
 */
const tokenFileOf = async (kubeconfig: string, user: string | undefined): Promise<string | undefined> => {
  const { users } = parseDocument(await readFile(kubeconfig, 'utf8')).toJS() as KubeConfigFile
  const { tokenFile } = users?.find(({ name }) => name === user)?.user ?? {}
  return tokenFile ? resolve(dirname(kubeconfig), tokenFile) : undefined
}

interface KubeConfigFile {
  /** null is what kubectl writes where there are none. */
  readonly users?: readonly { readonly name: string; readonly user?: { readonly tokenFile?: string } | null }[] | null
}

/** A token's file is read for each call, since it changes, and wins over a token beside it. */
const accessOf = async (config: KubeConfig, server: string, tokenFile: string | undefined): Promise<Access> => {
  const options: RequestOptions = {}
  await config.applyToHTTPSOptions(options)
  const { ca, cert, key, servername, headers = {}, auth } = options
  return {
    server,
    headers: {
      ...Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), String(value).trim()])),
      ...(typeof auth === 'string' && { authorization: `Basic ${Buffer.from(auth).toString('base64')}` }),
      ...(tokenFile !== undefined && { authorization: `Bearer ${(await readFile(tokenFile, 'utf8')).trim()}` }),
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
