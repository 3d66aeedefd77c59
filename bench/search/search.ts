/** The auditor's searches and exports among millions of certificates. */
import { createReadStream } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'

import type { Place } from '../place.ts'
import { call } from '../request.ts'
import { makeSample } from '../sample.ts'
import { openChancery } from '../targets/chancery.ts'
import { type ExportRow, measureExports } from './exports.ts'
import { fillRecords, sampleName } from './fill.ts'
import type { SearchResults } from './report.ts'
import { measureSearches, type SearchRow } from './searches.ts'

/** Into the system's memory, where they are on a server that has enough of it and has been running. */
const readFiles = async (folder: string): Promise<void> => {
  for (const file of await readdir(join(folder, 'base'), { recursive: true, withFileTypes: true }))
    if (file.isFile()) await readThrough(join(file.parentPath, file.name))
}

/** PostgreSQL removes some while it runs. */
const readThrough = async (path: string): Promise<void> => {
  try {
    await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), async (chunks) => {
      for await (const _ of chunks);
    })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
}

export const measureSearch = async (
  place: Place,
  { certificates, nodeFlags }: { readonly certificates: number; readonly nodeFlags: readonly string[] },
  tell: (line: string) => void,
): Promise<SearchResults> => {
  const sample = await makeSample(place.folder, { name: sampleName })
  const first = await openChancery({ place, sample, name: 'searched' })
  const { url, ca, headers, body, database } = first
  const { status, text } = await call({ url, ca, method: 'POST', headers, body }).finally(() => first.close())
  first.assertIssued(status, text)
  if (!database) throw new Error('Chancery has no database here')
  const began = performance.now()
  const wanted = { serial: JSON.parse(text).serial, certificates: Math.ceil(certificates / 100) * 100 }
  const filled = await fillRecords(database, wanted, tell)
  tell(`filled in ${((performance.now() - began) / 60_000).toFixed(1)} minutes`)
  await readFiles(place.cluster)
  const target = await openChancery({ place, sample, name: 'searched', beside: first, nodeFlags })
  try {
    const searches: readonly SearchRow[] = await measureSearches(target, filled, tell)
    const exports: readonly ExportRow[] = await measureExports(target, place.postmaster, tell)
    return { certificates: filled.certificates, searches, exports }
  } finally {
    await target.close()
  }
}
