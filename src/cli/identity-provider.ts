/** `chancery identity-provider`: whose tokens are believed, and who they make somebody. */

import type { Command } from 'commander'

import type { Client } from '../client/rest.ts'
import { visible } from '../lib/output.ts'
import type { ProviderDocument } from '../policy/identity-document.ts'
import { openRest, type RestOptions, withRestOptions } from './rest.ts'
import { addShowAndList, applyDocument, readDocument, type Version } from './versions.ts'

interface ProviderVersion extends Version {
  readonly document: ProviderDocument
  readonly keysFault?: string
}

export const addIdentityProviderCommand = (program: Command): void => {
  const provider = program
    .command('identity-provider')
    .description('whose tokens are believed, and who their claims make somebody')

  withRestOptions(provider.command('apply <file>').description('apply a document (YAML or JSON) as the next version'))
    .option('--if-match <sha256>', 'only if this is the version there now; by default, the one that is read first')
    .action(async (file: string, options: RestOptions & { ifMatch?: string }) => {
      const { client, out } = await openRest(options)
      const document = await readDocument(file)
      const { before, applied } = await applyDocument<ProviderVersion>(client, path, document, options.ifMatch)
      const { name } = applied
      const isSame = before?.version === applied.version
      out.show(applied, `${name} is ${isSame ? 'unchanged' : 'applied'} at version ${applied.version}.`)
      if (applied.keysFault !== undefined) process.stderr.write(`note: ${visible(applied.keysFault)}\n`)
      // It is applied, whether or not there is anything to note.
      await noteRenamed(applied, before).catch(() => {})
      await noteShared(client, applied).catch(() => {})
    })

  addShowAndList(provider, { path, one: 'a document', many: 'identity providers', column: 'issuer' })
}

/** Principals are compared, not people: who is another one by now has lost all grants, and is not disabled any more either. */
const noteRenamed = async ({ name, document }: ProviderVersion, before: ProviderVersion | undefined): Promise<void> => {
  const { renamedBy } = await import('../policy/identity-shared.ts')
  const renamed = before && renamedBy(document, before.document)
  if (!renamed) return
  const told = `version ${before.version} of ${name} made ${renamed.from.join(', ')}, and this one makes ${renamed.to.join(', ')}: who had a name by that is another principal now.`
  process.stderr.write(
    `note: ${visible(told)} Grants do not follow, whom you have disabled gets in again, and what one has asked for as the one, one can approve as the other.\n`,
  )
}

/** Where an issuer moves, that is meant; else somebody there may be somebody here. */
const noteShared = async (client: Client, { name, document }: ProviderVersion): Promise<void> => {
  const { items } = (await client.call('GET', path)).json<{ items: readonly ProviderVersion[] }>()
  const { sharersOf } = await import('../policy/identity-shared.ts')
  const others = sharersOf(
    document,
    items.map((item) => item.document),
  )
  if (others.length === 0) return
  const told = `${name} and ${others.join(', ')} can make the same principals: whoever has the same claims there is the same.`
  process.stderr.write(`note: ${visible(told)} Unless that is meant, give each a prefix of its own.\n`)
}

const path = '/v1/identity-providers'
