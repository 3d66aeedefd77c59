import { readdirSync, readFileSync } from 'node:fs'

import { parse } from 'yaml'

/**
 * The profile documents that development begins with, one file each, in the order of their names. They are documents
 * like any other: whoever stores them parses them with `parseProfile`. The only input or output in this folder.
 */
export const loadSeedDocuments = (): readonly unknown[] => seedNames().map(loadSeedDocument)

/** Which there are: files have the names of their profiles. */
export const seedNames = (): readonly string[] =>
  readdirSync(folder)
    .filter((file) => file.endsWith(suffix))
    .sort()
    .map((file) => file.slice(0, -suffix.length))

export const loadSeedDocument = (name: string): unknown =>
  parse(readFileSync(new URL(`${name}${suffix}`, folder), 'utf8'))

const folder = new URL('seeds/', import.meta.url)
const suffix = '.yaml'
