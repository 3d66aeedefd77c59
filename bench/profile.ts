/**
 * What a CPU profile says, in numbers: `node bench/profile.ts <file.cpuprofile>` prints where the main thread's time
 * went, by room of the house and by function. `npm run bench -- --profile` takes one of the service under load.
 */
import { readFileSync } from 'node:fs'

interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number }
    readonly children?: readonly number[]
  }[]
  readonly samples: readonly number[]
  readonly timeDeltas: readonly number[]
}

export interface Share {
  readonly title: string
  /** Milliseconds in the function itself, without what it calls. */
  readonly self: number
}

export interface ProfileSummary {
  /** Milliseconds, idle time left out. */
  readonly busy: number
  readonly rooms: readonly Share[]
  readonly functions: readonly Share[]
}

/** Time of the samples, by room (a folder of src, a package, a part of Node) and by function; the largest first. */
export const summarise = (profile: CpuProfile): ProfileSummary => {
  const rooms = new Map<string, number>()
  const functions = new Map<string, number>()
  const frames = new Map(profile.nodes.map(({ id, callFrame }) => [id, callFrame]))
  let busy = 0
  profile.samples.forEach((id, i) => {
    const frame = frames.get(id)
    const took = (profile.timeDeltas[i] ?? 0) / 1000
    if (!frame || frame.functionName === '(idle)') return
    busy += took
    const room = roomOf(frame.url, frame.functionName)
    add(rooms, room, took)
    add(functions, `${frame.functionName || '(anonymous)'} ${room}:${frame.lineNumber + 1}`, took)
  })
  return { busy, rooms: largest(rooms), functions: largest(functions) }
}

const add = (to: Map<string, number>, title: string, took: number): void => {
  to.set(title, (to.get(title) ?? 0) + took)
}

const largest = (times: ReadonlyMap<string, number>): Share[] =>
  [...times].map(([title, self]) => ({ title, self })).sort((a, b) => b.self - a.self)

const roomOf = (url: string, functionName: string): string => {
  if (url === '') return functionName.startsWith('(') ? functionName : 'native'
  const own = /\/src\/([^/]+(?:\/[^/]+)?)/.exec(url)?.[1]
  const packaged = /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url)?.[1]
  return packaged ?? own ?? url
}

if (import.meta.main) {
  const { busy, rooms, functions } = summarise(JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')))
  const line = ({ title, self }: Share): string =>
    `${((100 * self) / busy).toFixed(1).padStart(5)} %  ${self.toFixed(0).padStart(6)} ms  ${title}`
  console.log(`busy ${busy.toFixed(0)} ms`)
  for (const share of [...rooms.slice(0, 30), { title: '--- functions', self: 0 }, ...functions.slice(0, 60)])
    console.log(line(share))
}
