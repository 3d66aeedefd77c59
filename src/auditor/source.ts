/** Where a roll is read from: a folder or a URL that has it as files (c2sp.org/tlog-tiles). */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { octetsOf, unfetched } from '../client/fetch-fault.ts'
import { failureOf } from '../client/rejected.ts'
import { type Client, type ClientOptions, chooseServer, openClient } from '../client/rest.ts'
import { Failure } from '../lib/failure.ts'

export interface RollSource {
  /** As it was given, for sentences. */
  readonly name: string
  /** By a service, which may have several replicas; a folder has what it has. */
  readonly isServed: boolean
  /** The octets of a file, by its path below the roll; undefined for what is not there. Rejects with a `Failure`. */
  read(path: string): Promise<Buffer | undefined>
}

/** By default the roll of the service that other commands speak to. */
export const openSource = async (from: string | undefined, options: ClientOptions): Promise<RollSource> => {
  if (from !== undefined && !/^https?:\/\//.test(from)) return openFolder(from)
  // A context that is not there is missed only where it is what names the server.
  const named = from ?? options.server ?? process.env['CHANCERY_URL']
  const url = urlOf(named ?? (await chooseServer(options, process.env)).server)
  if (url.protocol === 'http:' || options.anonymous) return withPatience(url.href, anonymousReader(url))
  const client = await openClient({ ...options, server: url.origin }, process.env)
  return withPatience(url.href, clientReader(client, url))
}

/** The signed note of the newest checkpoint. */
export const readCheckpoint = async (source: RollSource): Promise<Buffer> => {
  const note = await source.read('checkpoint')
  if (note !== undefined) return note
  throw new Failure('missing', `There is no roll at ${source.name}: it has no checkpoint.`)
}

/** A URL without a path is that of a service, which has its roll at /roll. */
const urlOf = (text: string): URL => {
  const url = URL.parse(text)
  if (url === null || url.search !== '' || url.hash !== '' || url.username !== '')
    throw new Failure('usage', `${text} is not like https://host:port or https://host/path.`)
  if (url.pathname === '/') url.pathname = '/roll'
  url.pathname = url.pathname.replace(/\/*$/, '/')
  return url
}

const openFolder = (folder: string): RollSource => ({
  name: folder,
  isServed: false,
  read: async (path) => {
    try {
      return await readFile(join(folder, path))
    } catch (error) {
      const { code = '' } = error as NodeJS.ErrnoException
      if (['ENOENT', 'ENOTDIR'].includes(code)) return undefined
      throw new Failure('usage', `${join(folder, path)} cannot be read (${code}).`)
    }
  },
})

type Read = RollSource['read']

const clientReader =
  (client: Client, url: URL): Read =>
  async (path) => {
    try {
      return (await client.call('GET', `${url.pathname}${path}`, { accept: '*/*' })).octets
    } catch (error) {
      if (error instanceof Failure && error.kind === 'missing') return undefined
      throw error
    }
  }

/** What anyone may read: the public listener, or any other server of files. */
const anonymousReader =
  (base: URL): Read =>
  async (path) => {
    const url = new URL(path, base)
    const answer = await fetch(url, { signal: AbortSignal.timeout(patienceMs) }).catch((error: Error) => {
      throw unfetched(url, error)
    })
    if (answer.status === 404) return undefined
    if (answer.ok)
      return octetsOf(answer).catch((error: Error) => {
        if (error instanceof Failure) throw error
        throw new Failure('later', `The answer of ${url} broke off: ${reasonOf(error)}.`)
      })
    throw await refusalOf(url, answer)
  }

/** In the words of a service, where it is one. */
const refusalOf = async (url: URL, answer: Response): Promise<Failure> => {
  const { status, headers } = answer
  const place = `${url} answers with ${status}`
  if (headers.get('content-type') !== 'application/problem+json')
    return new Failure(isForNow(status) ? 'later' : 'denied', `${place}.`)
  const { kind, message, problem } = failureOf({
    status,
    text: await octetsOf(answer).then(String, () => ''),
    headers: Object.fromEntries(headers),
  })
  return new Failure(kind, `${place}: ${message}`, problem)
}

/** Too slow, too much at once, or not able to: RFC 9110 15.5.9 and 15.6, RFC 6585 4. */
const isForNow = (status: number): boolean => status === 408 || status === 429 || status >= 500

const reasonOf = ({ message, cause }: Error): string => (cause instanceof Error ? cause.message : message)

/** Hours of reading are not lost to a server that restarts. Whether there is one at all is told at once. */
const withPatience = (name: string, read: Read): RollSource => {
  let hasAnswered = false
  const tryToRead = async (path: string, tries: readonly number[]): Promise<Buffer | undefined> => {
    try {
      const octets = await read(path)
      hasAnswered = true
      return octets
    } catch (error) {
      const [pause, ...rest] = tries
      if (!hasAnswered || pause === undefined || !(error instanceof Failure && error.kind === 'later')) throw error
      await sleep(pause)
      return tryToRead(path, rest)
    }
  }
  return { name, isServed: true, read: (path) => tryToRead(path, pausesMs) }
}

const patienceMs = 30_000
const pausesMs = [200, 1_000, 3_000, 10_000]
