/**
 * Searches put their statements together, and those that are asked come in few shapes. The first shapes are prepared: each
 * connection that is kept for them parses and plans them once. A plan for any values is as good as one for its own, where every
 * list is entered and left by the one index that begins with its columns. PostgreSQL would not know, and plan names below a
 * suffix and lists of a principal for each search: 0.7 to 1.2 of 3 ms, and of the slowest percent 3 of 8.
 */
import { hash } from 'node:crypto'

import type { Statement } from '../database.ts'

/** Prepares a statement of a search, if its shape is among the first. */
export type Shape = (text: string) => Statement

/** Each shape takes a quarter of a megabyte of each connection that has asked it, so there is a bound. */
export const openShapes = (most = 64): Shape => {
  const known = new Map<string, Statement>()
  return (text) => {
    let statement = known.get(text)
    if (!statement && known.size < most) {
      // A name always means the same text, whoever prepares it.
      statement = { text, name: 'search', shape: hash('sha256', text, 'base64url').slice(0, 16), pool: 'searching' }
      known.set(text, statement)
    }
    return statement ?? { text }
  }
}

/** The same statements, planned for their values as long as PostgreSQL believes that this is better. */
export const ownPlans =
  (shape: Shape): Shape =>
  (text) => {
    const { pool: _, ...statement } = shape(text)
    return statement
  }

/** Planned for its values, each time. */
export const unprepared: Shape = (text) => ({ text })

/** As many rows as a page or an export asks for, when nobody says how many: other limits would be shapes without end. */
export const isUsual = (limit: number): boolean => limit === 101 || limit === 1_001
