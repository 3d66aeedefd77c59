/** YAML as operators write it. Loaded where a command meets some: most never do, and would wait for it. */

/**
 * Version 1.2, no key twice, none that is no text, and of tags those of JSON: a map that is called a set or a date would be an
 * object without what is in it.
 */
export const strictYaml = { version: '1.2', uniqueKeys: true, stringKeys: true, resolveKnownTags: false } as const

/** Strict, no aliases, one document. Throws the library's own error, which names the place. */
export const parseYaml = async (text: string): Promise<unknown> => {
  if (isKey(text)) throw new Error(keyFault)
  const { parseDocument } = await import('yaml')
  try {
    const document = parseDocument(text, strictYaml)
    const [fault] = [...document.errors, ...document.warnings]
    if (fault) throw fault
    return document.toJS({ maxAliasCount: 0 })
  } catch (error) {
    if (error instanceof Error) error.message = yamlFault(error)
    throw error
  }
}

/** A key that is named in place of a document would be shown with what is wrong with it. */
export const isKey = (text: string): boolean => /-----BEGIN [A-Z0-9 ]*PRIVATE KEY/.test(text)
export const keyFault = 'it holds a private key'

/** What is wrong, where the library speaks to whoever calls it. */
export const yamlFault = ({ message, code }: { readonly message: string; readonly code?: string }): string =>
  code === 'MULTIPLE_DOCS' ? 'it has multiple documents: put each into a file of its own' : message

export const formatYaml = async (value: object): Promise<string> => (await import('yaml')).stringify(value)
