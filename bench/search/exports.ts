/** Everything as one stream: how many rows a second one client takes, and what memory it costs the service meanwhile. */
import { request } from 'node:https'

import { readMemory } from '../memory.ts'
import { between, readProcessors } from '../processors.ts'
import type { Target } from '../targets/target.ts'

export interface ExportRow {
  readonly title: string
  readonly rows: number
  readonly octets: number
  readonly seconds: number
  /** Processor seconds, of all threads and processes: these bear neighbours. */
  readonly service: number
  readonly postgres: number
  /** MiB of the service: before, and the most that it came to. */
  readonly before: number
  readonly most: number
}

export const measureExports = async (
  target: Target,
  postmaster: number,
  tell: (line: string) => void,
): Promise<readonly ExportRow[]> => {
  const rows: ExportRow[] = []
  for (const [title, path, accept] of exportsOf) {
    const began = readProcessors(target.pid, postmaster, true)
    const taken = await take(target, { title, path, accept })
    const { main, engine, pool, postgres } = between(began, readProcessors(target.pid, postmaster, true))
    const row = { ...taken, service: main + engine + pool, postgres }
    tell(
      `${title}: ${Math.round(row.rows / row.seconds)} rows/s, ${Math.round(row.before)} to ${Math.round(row.most)} MiB`,
    )
    rows.push(row)
  }
  return rows
}

const exportsOf = [
  ['certificates, NDJSON', '/v1/certificates', 'application/x-ndjson'],
  ['certificates, CSV', '/v1/certificates', 'text/csv'],
  ['certificates of a principal, NDJSON', '/v1/certificates?principal=pipeline', 'application/x-ndjson'],
  ['events, NDJSON', '/v1/events', 'application/x-ndjson'],
] as const

/** Its last line says whether it is whole, and how many rows it has. */
const take = async (
  { url, ca, headers: { authorization = '' }, pid }: Target,
  { title, path, accept }: { readonly title: string; readonly path: string; readonly accept: string },
): Promise<Omit<ExportRow, 'service' | 'postgres'>> => {
  const memory = (): number => readMemory(pid, undefined, new Set()).service
  const before = memory()
  let most = before
  const watch = setInterval(() => {
    most = Math.max(most, memory())
  }, 200)
  const began = performance.now()
  let octets = 0
  let tail = ''
  await new Promise<void>((resolve, reject) => {
    const asking = request(new URL(path, url), { ca, headers: { authorization, accept } }, (incoming) => {
      incoming.on('data', (chunk: Buffer) => {
        octets += chunk.length
        tail = (chunk.length > 4_096 ? '' : tail) + chunk.toString('latin1', Math.max(0, chunk.length - 4_096))
      })
      incoming.on('end', resolve)
      incoming.on('error', reject)
    })
    asking.on('error', reject)
    asking.end()
  }).finally(() => clearInterval(watch))
  const seconds = (performance.now() - began) / 1000
  const rows = /"?"rows"?":(\d+)\}/.exec(tail.slice(-1_000))?.[1]
  if (rows === undefined) throw new Error(`the export of ${path} is not whole: …${tail.slice(-300)}`)
  return { title, rows: Number(rows), octets, seconds, before, most: Math.max(most, memory()) }
}
