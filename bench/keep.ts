/** Results, dated, where the next run finds them. Commit those of a quiet machine. */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { tell } from './tell.ts'

/** What a run came to. */
export interface Outcome {
  readonly at: string
  /** After the date. */
  readonly suffix?: string
  readonly json: string
  readonly report: string
  /** Something did not do what it should: not a result. */
  readonly isFaulty: boolean
}

/** With numbers of no more digits than anybody reads. */
export const encodeKept = (results: object): string =>
  `${JSON.stringify(results, (_key, value) => (typeof value === 'number' ? Math.round(value * 1e6) / 1e6 : value), 1)}\n`

export const keepResults = async ({ at, suffix = '', json, report }: Outcome): Promise<void> => {
  const folder = join(import.meta.dirname, 'results')
  const name = `${at.slice(0, 16).replace('T', '-').replace(':', '')}${suffix}`
  await mkdir(folder, { recursive: true })
  await writeFile(join(folder, `${name}.json`), json)
  await writeFile(join(folder, `${name}.md`), `${report}\n`)
  tell(`kept as bench/results/${name}.md and .json`)
}
