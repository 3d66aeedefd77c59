/** YAML as operators write it. Loaded where a command meets some: most never do, and would wait for it. */

import type { Document } from 'yaml'

import { unseen } from './output.ts'

/**
 * Version 1.2, no key twice, none that is no text, and of tags those of JSON: a map that is called a set or a date would be an
 * object without what is in it.
 */
export const strictYaml = { version: '1.2', uniqueKeys: true, stringKeys: true, resolveKnownTags: false } as const

/** Strict, no aliases, one document. Throws the library's own error, which names the place. */
export const parseYaml = async (text: string): Promise<unknown> => {
  if (isKey(text)) throw new Error(keyFault)
  const yaml = await import('yaml')
  try {
    const document = yaml.parseDocument(text, strictYaml)
    const [fault] = [...document.errors, ...document.warnings]
    if (fault) throw fault
    assertNoAlias(document, text, yaml)
    return document.toJS({ maxAliasCount: 0 })
  } catch (error) {
    if (error instanceof Error) error.message = yamlFault(error, text)
    throw error
  }
}

/** `*.example.com` without quotes is one, which whoever wrote it did not mean. Throws an error that names its line. */
export const assertNoAlias = (
  document: Document.Parsed,
  text: string,
  { visit }: Pick<typeof import('yaml'), 'visit'>,
): void =>
  visit(document, {
    Alias: (_key, { range }) => {
      const line = text.slice(0, range?.[0]).split('\n').length
      throw new Error(`line ${line} has an alias, which is not taken: put a text that begins with * into quotes`)
    },
  })

/** A key that is named in place of a document would be shown with what is wrong with it. */
export const isKey = (text: string): boolean => /-----BEGIN [A-Z0-9 ]*PRIVATE KEY/.test(text)
export const keyFault = 'it holds a private key'

/**
 * What is wrong, where the library speaks to whoever calls it. It shows the line: not where there is one only, which may be a
 * token or a passphrase.
 */
export const yamlFault = (
  { message, code }: { readonly message: string; readonly code?: string },
  text: string,
): string => {
  if (code === 'MULTIPLE_DOCS') return 'it has multiple documents: put each into a file of its own'
  return text.trim().includes('\n') ? message : (message.split(quotes, 1)[0] ?? '').trimEnd()
}

/** What stands before something of the text in the library's messages. */
const quotes = /[\n:"!%]/

/** What could steer a terminal, or is not seen there, stands as an escape: also in a file, it is the same text. */
export const formatYaml = async (value: object): Promise<string> => {
  const { Document, visit } = await import('yaml')
  const document = new Document(value)
  visit(document, {
    Scalar: (_key, scalar) => {
      // In other strings an escape is text.
      if (typeof scalar.value === 'string' && isHidden(scalar.value)) scalar.type = 'QUOTE_DOUBLE'
    },
  })
  // Over several lines, the library loses blanks beside them.
  return document.toString({ doubleQuotedAsJSON: true }).replaceAll(unseen, yamlEscape)
}

/** So is a blank at the end of a line. */
const isHidden = (text: string): boolean => text.includes(' \n') || text.replaceAll(unseen, yamlEscape) !== text

/** YAML 1.2.2 5.7; lines end as they are. */
const yamlEscape = (character: string): string => {
  if (character === '\n') return character
  const digits = character.codePointAt(0)?.toString(16) ?? ''
  return digits.length > 4 ? `\\U${digits.padStart(8, '0')}` : `\\u${digits.padStart(4, '0')}`
}
