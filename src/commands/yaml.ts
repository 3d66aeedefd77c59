/** YAML as operators write it. Loaded where a command meets some: most never do, and would wait for it. */

/** Strict: version 1.2, no key twice, no aliases. Throws the library's own error, which names the place. */
export const parseYaml = async (text: string): Promise<unknown> =>
  (await import('yaml')).parse(text, { version: '1.2', uniqueKeys: true, maxAliasCount: 0 })

export const formatYaml = async (value: object): Promise<string> => (await import('yaml')).stringify(value)
