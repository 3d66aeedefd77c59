/** `npm run bench -- history`: how each comparison that was kept stands against the bounds, the oldest first. */
import { readdir, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'

import { boundsOf, type Kept, whole } from './report.ts'
import { toMarkdown } from './table.ts'

export const benchHistory = async (): Promise<string> => {
  const runs = await readKept()
  const rows = runs.map(rowOf)
  const counts = bounds.map(({ title, holds }) => `${title} in ${runs.filter(holds).length}`)
  return [toMarkdown(head, rows), `Of ${runs.length} runs, ${counts.join(', ')}.`].join('\n\n')
}

/** Those of Chancery beside both kinds of cfssl. */
const readKept = async (): Promise<readonly Run[]> => {
  const folder = join(import.meta.dirname, 'results')
  const names = (await readdir(folder)).filter((name) => /^[\d-]{15}\.json$/.test(name)).sort()
  const runs: Run[] = []
  for (const name of names) {
    const kept: Kept = JSON.parse(await readFile(join(folder, name), 'utf8'))
    const { against, slowest } = boundsOf(kept)
    const [recording, nothing] = [against('cfssl-recording')[1], against('cfssl')[1]]
    if (recording === undefined || nothing === undefined || slowest === undefined) continue
    runs.push({ name: basename(name, '.json'), kept, recording, nothing, slowest })
  }
  return runs
}

interface Run {
  readonly name: string
  readonly kept: Kept
  /** Each at its best: times as many certificates as the peer. */
  readonly recording: number
  readonly nothing: number
  /** Milliseconds of the slowest percent, with the fewest clients. */
  readonly slowest: number
}

const bounds: readonly { readonly title: string; readonly holds: (run: Run) => boolean }[] = [
  { title: '4 × cfssl recording holds', holds: ({ recording }) => recording >= 4 },
  { title: 'half of cfssl recording nothing', holds: ({ nothing }) => nothing >= 0.5 },
  { title: 'both', holds: ({ recording, nothing }) => recording >= 4 && nothing >= 0.5 },
  { title: 'a slowest percent below 30 ms', holds: ({ slowest }) => slowest < 30 },
]

const head = ['run', 'Chancery', 'processor', 'recording', 'nothing', 'p99 ms', 'floor/s', 'verify µs']

const rowOf = ({ name, kept: { machine, floor }, recording, nothing, slowest }: Run): readonly string[] => [
  name,
  machine.commit,
  machine.processor,
  `${recording.toFixed(2)} ×`,
  `${nothing.toFixed(2)} ×`,
  slowest.toFixed(1),
  floor ? whole(floor.perSecond) : '–',
  floor ? floor.verifying.toFixed(0) : '–',
]
