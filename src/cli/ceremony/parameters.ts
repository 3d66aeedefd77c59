/**
 * The parameters of a ceremony: a YAML file that was written and reviewed before. Its schema is closed, nothing is
 * filled in that matters, and all that is wrong is told at once, with its line.
 */
import { normalize } from 'node:path'

import * as yaml from 'yaml'

import { isProblem } from '../../errors.ts'
import { parsePkcs11Uri } from '../../keys/pkcs11/uri.ts'
import { Failure } from '../../lib/failure.ts'
import { visible } from '../../lib/output.ts'
import { assertNoAlias, isKey, keyFault, strictYaml, yamlFault } from '../../lib/yaml.ts'
import { shapeFaults, tokensOf } from '../../policy/shape.ts'
import type { NameConstraints } from '../../x509/certificate.ts'
import { parseSubtree, type Subtree, type SubtreeKind } from '../../x509/name-constraints.ts'
import { type AttributeType, assertSubjectSyntax, type Subject } from '../../x509/subject.ts'
import {
  type ConstraintsDocument,
  type CrlDocument,
  type Documents,
  type KeyDocument,
  type SpanDocument,
  type SubjectDocument,
  schemas,
} from './schema.ts'

/** The document, if it is sound. Throws Failure with a line for each fault. */
export const parseParameters = <K extends keyof Documents>(kind: K, text: string, file: string): Documents[K] => {
  if (isKey(text)) throw new Failure('usage', `${file} is not a file of parameters: ${keyFault}.`)
  const lines = new yaml.LineCounter()
  const document = yaml.parseDocument(text, { ...strictYaml, lineCounter: lines })
  const broken = [...document.errors, ...document.warnings]
  if (broken.length > 0)
    throw new Failure(
      'usage',
      broken.map((fault) => `${file} is not YAML: ${yamlFault(fault, text).trimEnd()}`).join('\n'),
    )
  const input = plainOf(document, text, file)
  const faults = faultsOf(kind, input)
  if (faults.length === 0) return input as Documents[K]
  const lineOf = (field: string): number => {
    for (let path = tokensOf(field); path.length > 0; path = path.slice(0, -1)) {
      const range = (document.getIn(path, true) as { range?: [number, number, number] } | undefined)?.range
      if (range) return lines.linePos(range[0]).line
    }
    return 1
  }
  const told = faults.map(({ field, value, reason }) => ({
    line: lineOf(field),
    text: `${field || '/'}${value === '' ? '' : ` (${value})`} ${reason}`,
  }))
  const sorted = told.sort((one, other) => one.line - other.line)
  throw new Failure('usage', sorted.map(({ line, text }) => visible(`${file}:${line}: ${text}.`)).join('\n'))
}

const plainOf = (document: yaml.Document.Parsed, text: string, file: string): unknown => {
  try {
    assertNoAlias(document, text, yaml)
    return document.toJS({ maxAliasCount: 0 })
  } catch (error) {
    throw new Failure('usage', `${file} is not plain YAML: ${(error as Error).message}`)
  }
}

// What parts of it mean -------------------------------------------------------------------------------------------------

/** The attributes in the order in which they are written. */
export const subjectOf = (document: SubjectDocument): Subject =>
  Object.entries(document).map(([type, value]) => ({ type: type as AttributeType, value }))

/** `days` counts from the beginning, both ends included (RFC 5280 4.1.2.5). */
export const spanOf = (
  { notBefore, notAfter, days }: SpanDocument,
  now: Date,
): { readonly notBefore: Date; readonly notAfter: Date } => {
  const from = notBefore === undefined ? wholeSecond(now) : new Date(notBefore)
  return {
    notBefore: from,
    notAfter: notAfter === undefined ? new Date(from.getTime() + (days ?? 0) * day - 1000) : new Date(notAfter),
  }
}

export const updatesOf = (
  { thisUpdate, nextUpdate, days }: CrlDocument['validity'],
  now: Date,
): { readonly thisUpdate: Date; readonly nextUpdate: Date } => {
  const from = thisUpdate === undefined ? wholeSecond(now) : new Date(thisUpdate)
  return {
    thisUpdate: from,
    nextUpdate: nextUpdate === undefined ? new Date(from.getTime() + (days ?? 0) * day) : new Date(nextUpdate),
  }
}

export const constraintsOf = ({ permitted, excluded }: ConstraintsDocument): NameConstraints => ({
  permitted: subtreesOf(permitted),
  excluded: subtreesOf(excluded),
})

/** 16 octets at least, as certificates and CRLs are read: of one number the same, with however many zeros it is written. */
export const serialOf = (text: string): Buffer => {
  const digits = text.replaceAll(':', '').toLowerCase()
  return Buffer.from(digits.replace(/^(00)+/, '').padStart(32, '0'), 'hex')
}

const subtreesOf = (lists: ConstraintsDocument['permitted']): readonly Subtree[] =>
  Object.entries(lists ?? {}).flatMap(([kind, texts]) =>
    texts.map((text) => parseSubtree(kind as SubtreeKind, text)).filter((subtree) => typeof subtree !== 'string'),
  )

// What shapes cannot say ------------------------------------------------------------------------------------------------

interface Fault {
  readonly field: string
  readonly value: string
  readonly reason: string
}
type Report = (field: string, value: string, reason: string) => void

const faultsOf = (kind: keyof Documents, input: unknown): readonly Fault[] => {
  const schema = schemas[kind]
  const faults: Fault[] = shapeFaults(schema, input)
  if (faults.length > 0) return faults
  const report: Report = (field, value, reason) => faults.push({ field, value, reason })
  for (const [name, value] of Object.entries(input as object)) senses[name]?.(value as never, report)
  return faults
}

const keyFaults = (key: KeyDocument, report: Report): void => {
  const { uri, algorithm, bits, module, pinFile } = key
  const wants = (name: keyof KeyDocument, isWanted: boolean): void => {
    if (isWanted === (key[name] === undefined))
      report(`/key/${name}`, '', isWanted ? 'is missing for a key at this URI' : 'says nothing of a key at this URI')
  }
  if ((algorithm === 'rsa') !== (bits !== undefined))
    report('/key/bits', '', algorithm === 'rsa' ? 'is missing: 3072 or 4096' : 'goes with rsa only')
  if (uri.startsWith('file:')) {
    wants('passphraseFile', true)
    wants('module', false)
    wants('pinFile', false)
    if (uri === 'file:') report('/key/uri', uri, 'names no file')
    return
  }
  if (!uri.startsWith('pkcs11:')) {
    report('/key/uri', uri, 'must begin with file: or pkcs11:')
    return
  }
  wants('passphraseFile', false)
  try {
    const parsed = parsePkcs11Uri(uri)
    if ((parsed.modulePath === undefined) === (module === undefined))
      report('/key/module', '', 'must be named once, here or in the URI (module-path)')
    if ((parsed.pinSource === undefined) === (pinFile === undefined))
      report('/key/pinFile', '', 'must be named once, here or in the URI (pin-source)')
  } catch (error) {
    // It may hold what should not be shown.
    report('/key/uri', '', `is not usable: ${(error as Error).message.replace(/\.$/, '')}`)
  }
}

const requestFaults = ({ algorithm, bits }: { algorithm: string; bits?: number }, report: Report): void => {
  if ((algorithm === 'rsa') !== (bits !== undefined))
    report('/request/bits', '', algorithm === 'rsa' ? 'is missing: 3072 or 4096' : 'goes with rsa only')
}

const subjectFaults = (subject: SubjectDocument, report: Report): void => {
  for (const one of subjectOf(subject)) {
    try {
      assertSubjectSyntax([one])
    } catch (error) {
      if (!isProblem(error)) throw error
      report(`/subject/${one.type}`, one.value, error.options.violations?.[0]?.reason ?? error.detail)
    }
  }
}

const constraintFaults = ({ permitted, excluded }: ConstraintsDocument, report: Report): void => {
  let count = 0
  for (const [list, kinds] of Object.entries({ permitted, excluded }))
    for (const [kind, texts] of Object.entries(kinds ?? {}))
      texts.forEach((text, i) => {
        count += 1
        const subtree = parseSubtree(kind as SubtreeKind, text)
        if (typeof subtree === 'string') report(`/nameConstraints/${list}/${kind}/${i}`, JSON.stringify(text), subtree)
      })
  if (count === 0) report('/nameConstraints', '', 'holds no name; leave it out')
}

/** A beginning that may be now, and an end or the days until then. */
const validityFaults = (validity: SpanDocument & CrlDocument['validity'], report: Report): void => {
  const { days } = validity
  const ends = ['notAfter', 'nextUpdate'] as const
  const end = ends.find((name) => validity[name] !== undefined)
  if ((end === undefined) === (days === undefined)) report('/validity', '', 'must have an end or days, and not both')
  for (const name of ['notBefore', 'thisUpdate', ...ends] as const) {
    const text = validity[name]
    if (text !== undefined && !isMoment(text)) report(`/validity/${name}`, text, 'is not a moment that exists')
  }
  const from = validity.notBefore ?? validity.thisUpdate
  const until = end && validity[end]
  if (from !== undefined && until !== undefined && from >= until)
    report(`/validity/${end}`, until, 'does not lie after the beginning')
}

const revokedFaults = (revoked: CrlDocument['revoked'], report: Report): void => {
  const seen = new Set<string>()
  revoked.forEach(({ serial, at, invalidSince }, i) => {
    const hex = serialOf(serial).toString('hex')
    if (seen.has(hex)) report(`/revoked/${i}/serial`, serial, 'is listed twice')
    seen.add(hex)
    // RFC 5280 4.1.2.2: positive, in 20 octets at most.
    if (/^0+$/.test(hex) || /^[89a-f].{39}$/.test(hex))
      report(`/revoked/${i}/serial`, serial, 'is no serial of a certificate')
    if (!isMoment(at)) report(`/revoked/${i}/at`, at, 'is not a moment that exists')
    if (invalidSince !== undefined && !isMoment(invalidSince))
      report(`/revoked/${i}/invalidSince`, invalidSince, 'is not a moment that exists')
  })
}

const outputFaults = (output: Readonly<Record<string, string>>, report: Report): void => {
  const paths = Object.entries(output)
  paths.forEach(([name, path], i) => {
    if (paths.findIndex(([, other]) => normalize(other) === normalize(path)) < i)
      report(`/output/${name}`, path, 'is the file of another output')
  })
}

/** One that a certificate can tell (RFC 5280 4.1.2.5). */
const isMoment = (text: string): boolean => {
  const date = new Date(text)
  return date.getTime() >= firstMoment && date.toISOString() === text.replace('Z', '.000Z')
}

const wholeSecond = (date: Date): Date => new Date(Math.floor(date.getTime() / 1000) * 1000)

// By the name of the member: it means the same in every ceremony. The shape of each was judged before.
const senses: Readonly<Record<string, (value: never, report: Report) => void>> = {
  key: keyFaults,
  request: requestFaults,
  subject: subjectFaults,
  nameConstraints: constraintFaults,
  validity: validityFaults,
  revoked: revokedFaults,
  output: outputFaults,
}
const day = 86_400_000
const firstMoment = Date.UTC(1950)
export const lastMoment = Date.UTC(10_000) - 1000
