/** `chancery profile`: what certificates look like, kept in files and applied as versions. */
import { readFile } from 'node:fs/promises'

import type { Command } from 'commander'
import { parse, stringify } from 'yaml'

import { diffLines } from './diff.ts'
import { Failure } from './failure.ts'
import { openRest, type Rest, type RestOptions, withRestOptions } from './rest.ts'

interface Version {
  readonly name: string
  readonly version: number
  readonly sha256: string
  readonly authority: string
  readonly document: Readonly<Record<string, unknown>>
  readonly createdAt: string
  readonly createdBy: string
}

export const addProfileCommand = (program: Command): void => {
  const profile = program.command('profile').description('what certificates look like, and which names they may carry')

  withRestOptions(
    profile.command('apply <file...>').description('apply profile documents (YAML or JSON) as next versions'),
  )
    .option('--if-match <sha256>', 'only if this is the version there now; by default, the one that is read first')
    .action(async (files: string[], options: RestOptions & { ifMatch?: string }) => {
      const rest = await openRest(options)
      for (const file of files) await apply(rest, await readDocument(file), options.ifMatch)
    })

  withRestOptions(profile.command('show <name>').description('show a profile, as YAML'))
    .option('--at <version>', 'this version instead of the newest')
    .action(async (name: string, options: RestOptions & { at?: string }) => {
      const { client, out } = await openRest(options)
      const stored = (await client.call('GET', versionPath(name, options.at))).json<Version>()
      out.show(
        stored,
        `# version ${stored.version}, sha256 ${stored.sha256}, by ${stored.createdBy} at ${stored.createdAt}\n${stringify(stored.document)}`,
      )
    })

  withRestOptions(profile.command('list [name]').description('list profiles, or the versions of one')).action(
    async (name: string | undefined, options: RestOptions) => {
      const { client, out } = await openRest(options)
      const path = name === undefined ? '/v1/profiles' : `${versionPath(name)}/versions`
      out.table((await client.call('GET', path)).json<{ items: Record<string, unknown>[] }>().items, [
        'name',
        'version',
        'authority',
        'createdAt',
        'createdBy',
        'sha256',
      ])
    },
  )

  withRestOptions(
    profile.command('diff <file>').description('what applying a document would change; exit code 6 if anything'),
  ).action(async (file: string, options: RestOptions) => {
    const rest = await openRest(options)
    const document = await readDocument(file)
    const stored = await readCurrent(rest, document.name)
    const lines = diffLines(stored ? asText(stored.document) : '', asText(document.content))
    rest.out.show(
      { name: document.name, version: stored?.version ?? 0, changed: lines.length > 0, lines },
      lines.join('\n'),
    )
    if (lines.length > 0) throw new Failure('conflict', '')
  })
}

interface Document {
  readonly name: string
  readonly content: object
}

const apply = async (
  { client, out }: Rest,
  { name, content }: Document,
  ifMatch: string | undefined,
): Promise<void> => {
  const sha256 = ifMatch ?? (await readCurrent({ client, out }, name))?.sha256
  const headers: Record<string, string> =
    sha256 === undefined ? { 'if-none-match': '*' } : { 'if-match': `"${sha256}"` }
  const stored = (await client.call('PUT', versionPath(name), { headers, body: content })).json<Version>()
  const unchanged = stored.sha256 === sha256
  out.show(stored, `${name} is ${unchanged ? 'unchanged at' : 'now at'} version ${stored.version}.`)
}

const readCurrent = async ({ client }: Rest, name: string): Promise<Version | undefined> => {
  try {
    return (await client.call('GET', versionPath(name))).json<Version>()
  } catch (error) {
    if (error instanceof Failure && (error.problem as { code?: string } | undefined)?.code === 'profile.not_found')
      return undefined
    throw error
  }
}

const versionPath = (name: string, version?: string): string =>
  `/v1/profiles/${encodeURIComponent(name)}${version === undefined ? '' : `/versions/${encodeURIComponent(version)}`}`

const readDocument = async (file: string): Promise<Document> => {
  let content: unknown
  try {
    content = parse(await readFile(file, 'utf8'), { version: '1.2', uniqueKeys: true, maxAliasCount: 0 })
  } catch (error) {
    throw new Failure('usage', `${file} cannot be read: ${(error as Error).message}`)
  }
  if (typeof content !== 'object' || content === null || !('name' in content) || typeof content.name !== 'string') {
    throw new Failure('usage', `${file} is not a profile document: it has no name.`)
  }
  return { name: content.name, content }
}

/** Members in one order, so that only what differs in content differs in text. */
const asText = (document: object): string => stringify(sorted(document))

const sorted = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(sorted)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, member]) => [key, sorted(member)]),
  )
}
