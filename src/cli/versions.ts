/** Documents in immutable versions, as the commands of profiles and of identity providers show and list them. */
import type { Command } from 'commander'

import { type Client, segment } from '../client/rest.ts'
import { Failure } from '../lib/failure.ts'
import { readGivenText } from '../lib/input-files.ts'
import { versionLine } from '../lib/output.ts'
import { formatYaml, parseYaml } from '../lib/yaml.ts'
import { openRest, type RestOptions, withRestOptions } from './rest.ts'

export interface Version {
  readonly name: string
  readonly version: number
  readonly sha256: string
  readonly document: object
  readonly createdAt: string
  readonly createdBy: string
}

interface Kind {
  readonly path: string
  /** For people. */
  readonly one: string
  readonly many: string
  /** The column that only lists of these have. */
  readonly column: string
  /** Throws for what is no name. */
  readonly assertName?: (text: string) => void
}

export const addShowAndList = (command: Command, { path, one, many, column, assertName }: Kind): void => {
  withRestOptions(command.command('show <name>').description(`show ${one}, as YAML`))
    .option('--at <version>', 'this version instead of the newest')
    .action(async (name: string, options: RestOptions & { at?: string }) => {
      assertName?.(name)
      const { client, out } = await openRest(options)
      const at = options.at === undefined ? '' : `/versions/${segment(options.at)}`
      const stored = (await client.call('GET', `${path}/${segment(name)}${at}`)).json<Version>()
      out.show(stored, `${versionLine(stored)}\n${await formatYaml(stored.document)}`)
    })

  withRestOptions(command.command('list [name]').description(`list ${many}, or the versions of one`)).action(
    async (name: string | undefined, options: RestOptions) => {
      const { client, out } = await openRest(options)
      const listed = name === undefined ? path : `${path}/${segment(name)}/versions`
      const { items } = (await client.call('GET', listed)).json<{ items: Record<string, unknown>[] }>()
      out.table(items, ['name', 'version', column, 'createdAt', 'createdBy', 'sha256'])
    },
  )
}

export interface NamedDocument {
  readonly file: string
  readonly name: string
  readonly content: object
}

/** YAML or JSON. What else is wrong with it, the server says. */
export const readDocument = async (file: string): Promise<NamedDocument> => {
  const content: unknown = await parseYaml(await readGivenText(file)).catch((error: Error) => {
    throw new Failure('usage', `${file} cannot be read: ${error.message}`)
  })
  if (typeof content !== 'object' || content === null || !('name' in content))
    throw new Failure('usage', `${file} is not a document: it has no name.`)
  if (typeof content.name !== 'string')
    throw new Failure('usage', `${file} is not a document: its name is no text; put it into quotes.`)
  return { file, name: content.name, content }
}

export const readCurrent = async <V extends Version>(
  client: Client,
  path: string,
  name: string,
): Promise<V | undefined> => {
  try {
    return (await client.call('GET', `${path}/${segment(name)}`)).json<V>()
  } catch (error) {
    if (error instanceof Failure && error.kind === 'missing') return undefined
    throw error
  }
}

/** Only where the version there is still `ifMatch`, or the one that was just read. */
export const applyDocument = async <V extends Version>(
  client: Client,
  path: string,
  { name, content }: NamedDocument,
  ifMatch: string | undefined,
): Promise<{ readonly before: V | undefined; readonly applied: V }> => {
  const before = await readCurrent<V>(client, path, name)
  const expected = ifMatch ?? before?.sha256
  const headers: Record<string, string> =
    expected === undefined ? { 'if-none-match': '*' } : { 'if-match': `"${expected}"` }
  const applied = await client.call('PUT', `${path}/${segment(name)}`, { headers, body: content })
  return { before, applied: applied.json<V>() }
}
