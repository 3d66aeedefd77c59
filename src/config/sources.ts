/** Where settings come from: the environment, files that it names, and one YAML file. */
import { access, constants, readFile } from 'node:fs/promises'

import type { Scalar } from 'yaml'

import { assertPrivateFile, readFileOrPipe, readPrivateFile, signerPatienceMs } from '../keys/private-file.ts'
import { nearest } from '../lib/suggest.ts'
import { otherNames, type Setting, settings } from './settings.ts'

/** A value as it was written. */
export interface Source {
  readonly text: string
  /** Where it was said, for messages. */
  readonly from: string
}

/** Values as written, by path. Adds to `faults`, and to `unread` the paths of what was said but cannot be read. */
export const gather = async (
  env: Readonly<Record<string, string | undefined>>,
  { faults, unread, purpose }: { readonly faults: string[]; readonly unread: Set<string>; readonly purpose: Purpose },
): Promise<Map<string, Source>> => {
  const isSigner = purpose === 'sign'
  const found = new Map<string, Source>()
  const strict = env['CHANCERY_MODE'] === 'production'
  const path = env['CHANCERY_CONFIG']
  const fromFile = path === undefined ? [] : await readYaml(path, faults, unread)
  for (const [key, source] of fromFile) found.set(key, source)
  const hardened = strict || found.get('mode')?.text === 'production'
  if (hardened && path !== undefined && fromFile.some(([key]) => byPath.get(key)?.secret)) {
    await readPrivateFile(path).catch((error: Error) => faults.push(`CHANCERY_CONFIG: ${error.message}`))
  }
  const twice = new Set<string>()
  for (const [name, value] of Object.entries(env)) {
    if (!name.startsWith('CHANCERY_') || value === undefined || otherNames.has(name) || serviceLink.test(name)) continue
    const file = name.endsWith('_FILE') ? byEnv.get(name.slice(0, -'_FILE'.length)) : undefined
    const setting = file?.secret ? file : byEnv.get(name)
    if (setting === undefined) {
      faults.push(`${name}: is not a setting${didYouMean(name, knownNames)}`)
    } else if (twice.has(setting.path)) {
      faults.push(`${setting.env}: is given twice, by itself and by ${setting.env}_FILE`)
    } else if (value === '') {
      faults.push(`${name}: is empty; unset it instead`)
      unread.add(setting.path)
    } else {
      twice.add(setting.path)
      const read = setting.signerOnly ? forSigners[purpose] : readSecret
      const content = setting === file ? await read(name, value, { hardened, faults, isSigner }) : value
      if (content === undefined) unread.add(setting.path)
      else {
        found.set(setting.path, { text: content, from: name })
        unread.delete(setting.path)
      }
    }
  }
  return found
}

export type Purpose = 'serve' | 'migrate' | 'sign'

type ReadSecret = (
  name: string,
  path: string,
  judging: { readonly hardened: boolean; readonly faults: string[]; readonly isSigner: boolean },
) => Promise<string | undefined>

/** What is for the signer alone is not read here; but that its file would do is known before it is started. */
const nothingOf: ReadSecret = async (name, path, { hardened, faults }) => {
  try {
    if (hardened) await assertPrivateFile(path)
    else await access(path, constants.R_OK)
    return ''
  } catch (error) {
    faults.push(`${name}: ${describeFileError(path, error)}`)
    return undefined
  }
}

const readSecret: ReadSecret = async (name, path, { hardened, faults, isSigner }) => {
  try {
    const octets = await (hardened ? readPrivateFile : readFileOrPipe)(path, isSigner ? signerPatienceMs : undefined)
    const content = octets.toString('utf8').replace(/\r?\n$/, '')
    if (content === '') faults.push(`${name}: ${path} is empty`)
    return content === '' ? undefined : content
  } catch (error) {
    faults.push(`${name}: ${describeFileError(path, error)}`)
    return undefined
  }
}

/** Who reads what is for signers alone; whoever migrates starts none, as an account that cannot reach it. */
const forSigners: Readonly<Record<Purpose, ReadSecret>> = {
  serve: nothingOf,
  migrate: async () => '',
  sign: readSecret,
}

const describeFileError = (path: string, error: unknown): string => {
  const { code, message: text } = error as NodeJS.ErrnoException
  return code === undefined ? text : `${path} cannot be read (${code})`
}

/** The leaves of the file, as written, with their places. */
const readYaml = async (
  path: string,
  faults: string[],
  unread: Set<string>,
): Promise<readonly (readonly [string, Source])[]> => {
  if (path === '') {
    faults.push('CHANCERY_CONFIG: is empty; unset it instead')
    return nothingRead(unread)
  }
  let content: string
  try {
    content = await readFile(path, 'utf8')
  } catch (error) {
    faults.push(`CHANCERY_CONFIG: ${describeFileError(path, error)}`)
    return nothingRead(unread)
  }
  // Most have no such file, each signer process among them, and would wait for it: a third of what its start takes.
  const { isMap, isScalar, LineCounter, parseDocument } = await import('yaml')
  const lines = new LineCounter()
  const document = parseDocument(content, { lineCounter: lines, strict: true, uniqueKeys: true, version: '1.2' })
  for (const error of document.errors) faults.push(`${path}: ${error.message.split('\n')[0]}`)
  if (document.errors.length > 0) return nothingRead(unread)
  if (document.contents === null) return []
  const leaves: (readonly [string, Source])[] = []
  const place = (node: unknown): string => {
    const { range } = node as { range?: readonly [number, number, number] | null }
    return range ? `${path}, line ${lines.linePos(range[0]).line}` : path
  }
  const walk = (node: unknown, prefix: string): void => {
    if (!isMap(node)) return void faults.push(`${place(node)}: ${prefix || 'the file'} is not a mapping`)
    for (const { key, value } of node.items) {
      const name = prefix === '' ? String(key) : `${prefix}.${String(key)}`
      if (branches.has(name)) walk(value, name)
      else if (!byPath.has(name))
        faults.push(`${place(key)}: ${name} is not a setting${didYouMean(name, [...byPath.keys()])}`)
      else if (!isScalar(value) || value.value === null) {
        faults.push(`${place(value ?? key)}: ${name} is not a single value`)
        unread.add(name)
      } else leaves.push([name, { text: asWritten(value), from: `${name} (${place(value)})` }])
    }
  }
  walk(document.contents, '')
  return leaves
}

/** What such a file says of any setting is not known. */
const nothingRead = (unread: Set<string>): readonly [] => {
  for (const path of byPath.keys()) unread.add(path)
  return []
}

/** 0123 is the text of a passphrase, although YAML takes it for a number. */
const asWritten = ({ value, source }: Scalar): string => (typeof value === 'string' ? value : (source ?? String(value)))

const didYouMean = (name: string, known: readonly string[]): string => {
  const meant = nearest(name, known)
  return meant === undefined ? '' : `; did you mean ${meant}?`
}

/** What Kubernetes puts into the environment of every pod beside a service called chancery. */
const serviceLink = /^CHANCERY_(SERVICE_.*|PORT|PORT_.*)$/
const byEnv: ReadonlyMap<string, Setting> = new Map(Object.values(settings).map((setting) => [setting.env, setting]))
const byPath: ReadonlyMap<string, Setting> = new Map(Object.values(settings).map((setting) => [setting.path, setting]))
const knownNames = Object.values(settings).flatMap(({ env, secret }) => (secret ? [env, `${env}_FILE`] : [env]))
/** The mappings in the file. */
const branches: ReadonlySet<string> = new Set(
  [...byPath.keys()].filter((path) => path.includes('.')).map((path) => path.split('.')[0] ?? ''),
)
