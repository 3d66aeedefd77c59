/** `chancery profile`: what certificates look like, kept in files and applied as versions. */

import type { Command } from 'commander'

import { segment } from '../client/rest.ts'
import { isProblem, problems, type Violation } from '../errors.ts'
import { sortMembers } from '../lib/canonical-json.ts'
import { Failure } from '../lib/failure.ts'
import { readGivenText } from '../lib/input-files.ts'
import { violationText, visible } from '../lib/output.ts'
import { formatYaml, parseYaml } from '../lib/yaml.ts'
import { diffLines } from './diff.ts'
import { openRest, type Rest, type RestOptions, withRestOptions } from './rest.ts'
import { addShowAndList, type Version } from './versions.ts'

export const addProfileCommand = (program: Command): void => {
  const profile = program.command('profile').description('what certificates look like, and which names they may carry')

  withRestOptions(
    profile
      .command('apply <file...>')
      .description(
        'apply profile documents (YAML or JSON) as next versions; all are checked before the first is applied',
      ),
  )
    .option('--if-match <sha256>', 'only if this is the version there now; by default, the one that is read first')
    .action(async (files: string[], options: RestOptions & { ifMatch?: string }) => {
      if (options.ifMatch !== undefined && files.length > 1)
        throw new Failure('usage', '--if-match names one version: apply one file with it.')
      const rest = await openRest(options)
      const documents = await readDocuments(files)
      await assertValid(documents, [nothingApplied])
      const changes = await withCurrent(rest, documents).catch((error) => {
        throw saying(error, [nothingApplied])
      })
      await applyAll(rest, changes, options.ifMatch)
    })

  const kind = { path: '/v1/profiles', one: 'a profile', many: 'profiles', column: 'authority' }
  addShowAndList(profile, { ...kind, assertName: assertNoVersion })

  withRestOptions(
    profile.command('diff <file>').description('what applying a document would change; exit code 6 if anything'),
  ).action(async (file: string, options: RestOptions) => {
    const rest = await openRest(options)
    const document = await readDocument(file)
    const stored = await readCurrent(rest, document.name)
    const lines = diffLines(stored ? await asText(stored.document) : '', await asText(document.content))
    rest.out.show(
      { name: document.name, version: stored?.version ?? 0, changed: lines.length > 0, lines },
      lines.join('\n'),
    )
    await assertValid([document], [])
    if (lines.length > 0) throw new Failure('conflict', '')
  })
}

interface Document {
  readonly file: string
  readonly name: string
  readonly content: object
}

/** With the version that is there now, where there is one. */
interface Change extends Document {
  readonly current: Version | undefined
}

interface Outcome {
  readonly name: string
  readonly outcome: 'created' | 'changed' | 'unchanged'
  /** The version before; null where there was none. */
  readonly from: number | null
  readonly version: number
  readonly sha256: string
}

/** All files, or a failure that names each that is unreadable or a second document of one profile. */
const readDocuments = async (files: readonly string[]): Promise<readonly Document[]> => {
  const read = await Promise.allSettled(files.map(readDocument))
  const documents = read.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
  const faults = [
    ...read.flatMap((result) => (result.status === 'rejected' ? [(result.reason as Error).message] : [])),
    ...documents.flatMap(({ file, name }, i) =>
      documents.findIndex((other) => other.name === name) < i
        ? [`${file} is a second document of the profile ${JSON.stringify(name)}.`]
        : [],
    ),
  ]
  if (faults.length > 0) throw new Failure('usage', [...faults, nothingApplied].join('\n'))
  return documents
}

/** As the server will judge them, all at once and before any is applied. */
const assertValid = async (documents: readonly Document[], said: readonly string[]): Promise<void> => {
  const { parseProfile } = await import('../policy/profile.ts')
  const faulty: { readonly file: string; readonly violations: readonly Violation[] }[] = []
  for (const { file, content } of documents) {
    const violations = faultsOf(() => parseProfile(content, { version: 1 }))
    if (violations.length > 0) faulty.push({ file, violations })
  }
  if (faulty.length === 0) return
  const code = 'profile.invalid'
  const lines = faulty.flatMap(({ file, violations }) => [
    `${file} is not a valid profile document (${code}).`,
    ...violations.map(violationText),
  ])
  const violations = faulty.flatMap(({ file, violations }) => violations.map((violation) => ({ file, ...violation })))
  const text = [...lines.map(visible), ...said].join('\n')
  throw new Failure('refused', text, { code, ...problems[code], detail: text, violations })
}

const faultsOf = (judge: () => unknown): readonly Violation[] => {
  try {
    judge()
    return []
  } catch (error) {
    if (!isProblem(error)) throw error
    return error.options.violations ?? []
  }
}

/** What only the server knows: the versions that are there, and the authorities. */
const withCurrent = async (rest: Rest, documents: readonly Document[]): Promise<readonly Change[]> => {
  const { items } = (await rest.client.call('GET', '/v1/authorities')).json<{ items: { name: string }[] }>()
  const known = new Set(items.map(({ name }) => name))
  const changes: Change[] = []
  for (const document of documents) {
    const { authority } = document.content as { readonly authority: string }
    if (!known.has(authority))
      throw new Failure(
        'missing',
        `${document.file} names the authority ${JSON.stringify(authority)}, which does not exist.`,
      )
    changes.push({ ...document, current: await readCurrent(rest, document.name) })
  }
  return changes
}

/** Tells what became of each, also of those before one that the server turned down. */
const applyAll = async (rest: Rest, changes: readonly Change[], ifMatch: string | undefined): Promise<void> => {
  const outcomes: Outcome[] = []
  try {
    for (const change of changes) outcomes.push(await apply(rest, change, ifMatch))
  } catch (error) {
    const [failed, ...left] = changes.slice(outcomes.length).map(({ file }) => file)
    throw saying(error, isAnswered(error) ? [notApplied([failed, ...left])] : [unknown(failed), notApplied(left)])
  } finally {
    rest.out.show(outcomes, outcomes.map(outcomeText).join('\n'))
  }
}

const apply = async ({ client }: Rest, change: Change, ifMatch: string | undefined): Promise<Outcome> => {
  const { name, content, current } = change
  const expected = ifMatch ?? current?.sha256
  const headers: Record<string, string> =
    expected === undefined ? { 'if-none-match': '*' } : { 'if-match': `"${expected}"` }
  const { version, sha256 } = (await client.call('PUT', pathOf(name), { headers, body: content })).json<Version>()
  const from = current?.version ?? null
  return {
    name,
    outcome: from === null ? 'created' : from === version ? 'unchanged' : 'changed',
    from,
    version,
    sha256,
  }
}

/** Whether the server said what became of it: a proxy that speaks in its place says when to come back at most. */
const isAnswered = (error: unknown): boolean => error instanceof Failure && error.problemCode !== undefined

const notApplied = (files: readonly (string | undefined)[]): string =>
  files.length === 0 ? '' : `Not applied: ${files.join(', ')}.`

const unknown = (file: string | undefined): string =>
  `It is not known whether ${file} was applied; chancery profile diff tells.`

/** The same failure, with what else there is to know of it. */
const saying = (error: unknown, sentences: readonly string[]): unknown =>
  error instanceof Failure
    ? new Failure(error.kind, [error.message, ...sentences].filter(Boolean).join('\n'), error.problem)
    : error

const outcomeText = ({ name, outcome, from, version }: Outcome): string =>
  ({
    created: `${name} was created at version ${version}.`,
    changed: `${name} was changed from version ${from} to ${version}.`,
    unchanged: `${name} is unchanged at version ${version}.`,
  })[outcome]

const readCurrent = async ({ client }: Rest, name: string): Promise<Version | undefined> => {
  const [{ ProfileDocumentSchema }, { shapeFaults }] = await Promise.all([
    import('../policy/document.ts'),
    import('../policy/shape.ts'),
  ])
  // None has a name that none may have, which is among the faults of its document.
  if (shapeFaults(ProfileDocumentSchema.properties.name, name).length > 0) return undefined
  try {
    return (await client.call('GET', pathOf(name))).json<Version>()
  } catch (error) {
    if (error instanceof Failure && error.problemCode === 'profile.not_found') return undefined
    throw error
  }
}

/** `server@2`, as tables have it, is no name. */
const assertNoVersion = (text: string): void => {
  const [, name, version] = /^([a-z\d-]+)@(\d+)$/.exec(text) ?? []
  if (version === undefined) return
  throw new Failure('usage', `${text} is version ${version} of ${name}: chancery profile show ${name} --at ${version}`)
}

const pathOf = (name: string): string => `/v1/profiles/${segment(name)}`

const readDocument = async (file: string): Promise<Document> => {
  const content: unknown = await parseYaml(await readGivenText(file)).catch((error: Error) => {
    throw new Failure('usage', `${file} cannot be read: ${error.message}`)
  })
  if (typeof content !== 'object' || content === null || !('name' in content)) {
    throw new Failure('usage', `${file} is not a profile document: it has no name.`)
  }
  if (typeof content.name !== 'string')
    throw new Failure('usage', `${file} is not a profile document: its name is no text; put it into quotes.`)
  return { file, name: content.name, content }
}

/** Members in one order, so that only what differs in content differs in text. */
const asText = (document: object): Promise<string> => formatYaml(sortMembers(document) as object)

const nothingApplied = 'Nothing was applied.'
