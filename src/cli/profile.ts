/** `chancery profile`: what certificates look like, kept in files and applied as versions. */
import type { Command } from 'commander'

import { sortMembers } from '../lib/canonical-json.ts'
import { Failure } from '../lib/failure.ts'
import { formatYaml } from '../lib/yaml.ts'
import { openRest, type Rest, type RestOptions, withRestOptions } from './rest.ts'
import { addShowAndList, applyDocument, type NamedDocument, readCurrent, readDocument } from './versions.ts'

export const addProfileCommand = (program: Command): void => {
  const profile = program.command('profile').description('what certificates look like, and which names they may carry')

  withRestOptions(
    profile
      .command('apply <file...>')
      .description('apply profile documents (YAML or JSON) as next versions, one after the other'),
  )
    .option('--if-match <sha256>', 'only if this is the version there now; by default, the one that is read first')
    .action(async (files: string[], options: RestOptions & { ifMatch?: string }) => {
      if (options.ifMatch !== undefined && files.length > 1)
        throw new Failure('usage', '--if-match names one version: apply one file with it.')
      const rest = await openRest(options)
      await applyAll(rest, await readDocuments(files), options.ifMatch)
    })

  const kind = { path, one: 'a profile', many: 'profiles', column: 'authority' }
  addShowAndList(profile, { ...kind, assertName: assertNoVersion })

  withRestOptions(
    profile.command('diff <file>').description('what applying a document would change; exit code 6 if anything'),
  ).action(async (file: string, options: RestOptions) => {
    const rest = await openRest(options)
    const document = await readDocument(file)
    const stored = await readCurrent(rest.client, path, document.name)
    const lines = diffLines(stored ? await asText(stored.document) : '', await asText(document.content))
    rest.out.show(
      { name: document.name, version: stored?.version ?? 0, changed: lines.length > 0, lines },
      lines.join('\n'),
    )
    if (lines.length > 0) throw new Failure('conflict', '')
  })
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
const readDocuments = async (files: readonly string[]): Promise<readonly NamedDocument[]> => {
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
  if (faults.length > 0) throw new Failure('usage', [...faults, 'Nothing was applied.'].join('\n'))
  return documents
}

/** Stops at the first that fails, and reports what became of each. */
const applyAll = async (
  rest: Rest,
  documents: readonly NamedDocument[],
  ifMatch: string | undefined,
): Promise<void> => {
  const outcomes: Outcome[] = []
  try {
    for (const document of documents) outcomes.push(await apply(rest, document, ifMatch))
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    const [failed, ...left] = documents.slice(outcomes.length).map(({ file }) => file)
    const lines = [
      `${failed}: ${error.message}`,
      ...(error.problemCode === undefined ? ['It may have been applied: chancery profile diff shows that.'] : []),
      ...(left.length === 0 ? [] : [`Not applied: ${left.join(', ')}.`]),
    ]
    throw new Failure(error.kind, lines.join('\n'), error.problem)
  } finally {
    rest.out.show(outcomes, outcomes.map(outcomeText).join('\n'))
  }
}

const apply = async ({ client }: Rest, document: NamedDocument, ifMatch: string | undefined): Promise<Outcome> => {
  const { before, applied } = await applyDocument(client, path, document, ifMatch)
  const { name, version, sha256 } = applied
  const from = before?.version ?? null
  const outcome = from === null ? 'created' : from === version ? 'unchanged' : 'changed'
  return { name, outcome, from, version, sha256 }
}

const outcomeText = ({ name, outcome, from, version }: Outcome): string =>
  ({
    created: `${name} was created at version ${version}.`,
    changed: `${name} was changed from version ${from} to ${version}.`,
    unchanged: `${name} is unchanged at version ${version}.`,
  })[outcome]

/** `server@2`, as tables have it, is no name. */
const assertNoVersion = (text: string): void => {
  const [, name, version] = /^([a-z\d-]+)@(\d+)$/.exec(text) ?? []
  if (version === undefined) return
  throw new Failure('usage', `${text} is version ${version} of ${name}: chancery profile show ${name} --at ${version}`)
}

/** Members in one order, so that only what differs in content differs in text. */
const asText = (document: object): Promise<string> => formatYaml(sortMembers(document) as object)

const path = '/v1/profiles'

/** The difference of two short texts, line by line: `-` only before, `+` only after, two lines around each change. */
export const diffLines = (before: string, after: string): readonly string[] => {
  const old = before === '' ? [] : before.trimEnd().split('\n')
  const fresh = after === '' ? [] : after.trimEnd().split('\n')
  const marked = mark(old, fresh)
  const isNear = (place: number): boolean =>
    marked.slice(Math.max(0, place - context), place + context + 1).some((line) => !line.startsWith(' '))
  return marked.filter((_, place) => isNear(place))
}

/** By the longest common subsequence; quadratic, for documents of hundreds of lines. */
const mark = (old: readonly string[], fresh: readonly string[]): readonly string[] => {
  const common = longestCommon(old, fresh)
  const lines: string[] = []
  let i = 0
  let j = 0
  while (i < old.length || j < fresh.length) {
    const dropOld = i < old.length ? (common[i + 1]?.[j] ?? 0) : -1
    const addFresh = j < fresh.length ? (common[i]?.[j + 1] ?? 0) : -1
    if (i < old.length && j < fresh.length && old[i] === fresh[j]) {
      lines.push(`  ${old[i]}`)
      i += 1
      j += 1
    } else if (dropOld >= addFresh) {
      lines.push(`- ${old[i]}`)
      i += 1
    } else {
      lines.push(`+ ${fresh[j]}`)
      j += 1
    }
  }
  return lines
}

/** `common[i][j]`: how many lines `old` from i and `fresh` from j have in common, in order. */
const longestCommon = (old: readonly string[], fresh: readonly string[]): readonly (readonly number[])[] => {
  const common: number[][] = [...old, ''].map(() => new Array<number>(fresh.length + 1).fill(0))
  for (let i = old.length - 1; i >= 0; i--) {
    for (let j = fresh.length - 1; j >= 0; j--) {
      const row = common[i] ?? []
      row[j] =
        old[i] === fresh[j] ? (common[i + 1]?.[j + 1] ?? 0) + 1 : Math.max(common[i + 1]?.[j] ?? 0, row[j + 1] ?? 0)
    }
  }
  return common
}

const context = 2
