/** What tests of `chancery issue-many` share. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import type { Test } from 'tap'

import type { Row } from '../../src/client/issue/ended.ts'
import type { Run } from '../helpers/run.ts'
import { newFolder } from './folders.ts'

/** Files of these contents, and the folder for their chains, which is not there yet. */
export const filesOf = async (t: Test, texts: Readonly<Record<string, string | Buffer>>) => {
  const folder = await newFolder(t)
  for (const [name, text] of Object.entries(texts)) await writeFile(join(folder, name), text)
  return { folder, files: Object.keys(texts).map((name) => join(folder, name)), out: join(folder, 'out') }
}

export const args = (files: readonly string[], out: string, ...more: readonly string[]): readonly string[] => [
  ...['issue-many', ...files, '--profile', 'server', '--out', out],
  ...more,
]

export const rowsOf = ({ out }: Run): readonly (Row & { readonly problem: { readonly code?: string } | null })[] =>
  JSON.parse(out)
