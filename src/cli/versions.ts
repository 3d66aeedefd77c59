/** Documents in immutable versions, as the commands of profiles and of identity providers show and list them. */
import type { Command } from 'commander'

import { segment } from '../client/rest.ts'
import { versionLine } from '../lib/output.ts'
import { formatYaml } from '../lib/yaml.ts'
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
