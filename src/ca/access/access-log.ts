/** Who has looked at the records of others. The store implements it; whatever answers searches and exports records them. */
import type { OpenWalk } from '../records.ts'

export const searchable = ['certificates', 'events', 'refusals', 'accesses'] as const
export type Searchable = (typeof searchable)[number]

/** A search is one row, with what it found. An export is one when it begins and one when it has ended. */
export const acts = ['searched', 'began', 'completed', 'broke'] as const

/** Entries by the bundle, as those who copy the roll take them, are tiles. */
export const formats = ['json', 'ndjson', 'csv', 'tiles'] as const

export interface Access {
  readonly principal: string
  readonly act: (typeof acts)[number]
  readonly records: Searchable
  /** As it was asked. */
  readonly filter: Readonly<Record<string, string>>
  /** Goes on from the page before. */
  readonly continues: boolean
  readonly format: (typeof formats)[number]
  /** Of the roll that the answer is bound to. */
  readonly size: number
  /** Null when an export begins. */
  readonly rows: number | null
  /** Of the end of an export: the row that began it. */
  readonly export: string | null
}

export interface AccessRecord extends Access {
  readonly id: string
  readonly at: Date
}

export interface AccessFilter {
  readonly principal?: string
  readonly act?: Access['act']
  readonly records?: Searchable
  readonly after?: Date
  readonly before?: Date
}

export interface Accesses {
  /** Durable when it resolves, to the row's id. */
  record(access: Access): Promise<string>
  /** Newest first. */
  readonly walk: OpenWalk<AccessFilter, AccessRecord>
}
