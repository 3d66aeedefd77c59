/**
 * Questions that wait for their answers. Not in a Map: one that is long-lived leaves its old tables behind each time that it
 * has grown or shrunk, and whoever stood in one lives on with all that he holds until the whole heap is collected (a fifth of
 * what a certificate left there, measured).
 */
import type { SignerRecord } from './stream.ts'

export interface Questions {
  /** Its id, which is not 0. `settle` is called once. */
  add(settle: Settle, patienceMs: number): number
  /** False where nobody waits under this id. */
  answer(record: SignerRecord): boolean
  /** Settles all with undefined. */
  end(): void
}

type Settle = (answer: SignerRecord | undefined) => void

interface Question {
  readonly id: number
  readonly settle: Settle
  readonly patienceMs: number
  /** When its patience ends. */
  readonly until: number
}

/**
 * `late` is told when a question was not answered within its patience; who hears it ends them all. Waiting keeps no process
 * running.
 */
export const openQuestions = (late: (patienceMs: number) => void): Questions => {
  /** By place; an id is a place, and how many questions had been asked when it was taken. */
  const waiting: (Question | undefined)[] = []
  const free: number[] = []
  let asked = 0
  let timer: NodeJS.Timeout | undefined
  let lookAt = Number.POSITIVE_INFINITY

  const lookIn = (until: number): void => {
    clearTimeout(timer)
    lookAt = until
    timer = setTimeout(look, Math.max(1, until - performance.now())).unref()
  }
  const look = (): void => {
    lookAt = Number.POSITIVE_INFINITY
    let next: Question | undefined
    for (const one of waiting) if (one && (next === undefined || one.until < next.until)) next = one
    if (next === undefined) return
    if (next.until > performance.now()) lookIn(next.until)
    else setImmediate(giveUp, next)
  }
  /** A turn later: what was answered while this process was held up, as by SIGSTOP, is heard of before. */
  const giveUp = (one: Question): void => {
    if (waiting.includes(one)) late(one.patienceMs)
    else look()
  }

  return {
    add: (settle, patienceMs) => {
      const place = free.pop() ?? waiting.length
      if (place >= places) throw new RangeError('too many questions wait for a signer')
      asked = (asked % mostAsked) + 1
      const id = asked * places + place
      const until = performance.now() + patienceMs
      waiting[place] = { id, settle, patienceMs, until }
      if (until < lookAt) lookIn(until)
      return id
    },
    answer: (record) => {
      const place = record.id % places
      const question = waiting[place]
      if (question?.id !== record.id) return false
      waiting[place] = undefined
      free.push(place)
      question.settle(record)
      return true
    },
    end: () => {
      clearTimeout(timer)
      lookAt = Number.POSITIVE_INFINITY
      free.length = 0
      for (const question of waiting.splice(0)) question?.settle(undefined)
    },
  }
}

/** An id has 32 bits. */
const places = 2 ** 20
const mostAsked = 2 ** 12 - 1
