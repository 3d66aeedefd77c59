/** Pages whose commands are typed by tests. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..', '..')

/** The blocks of a page (commands or documents) that are marked for a test, by their name. */
export const blocksOf = async (page: string): Promise<ReadonlyMap<string, string>> => {
  const text = await readFile(join(root, page), 'utf8')
  const found = text.matchAll(/<!-- docs-test: (\S+) -->\n```(?:sh|yaml|nginx)\n([\s\S]*?)```/g)
  return new Map([...found].map(([, name = '', commands = '']) => [name, commands]))
}
