/** Questions that wait for their answers. */
import type { SignerRecord } from './stream.ts'

export interface Questions {
  /** Its id, which is not 0. `settle` is called once. */
  add(settle: Settle, patienceMs: number): number
  /** False where no question waits under this id. */
  answer(record: SignerRecord): boolean
  /** Settles all with undefined. */
  end(): void
}

type Settle = (answer: SignerRecord | undefined) => void

interface Question {
  readonly settle: Settle
  readonly timer: NodeJS.Timeout
}

/** Calls `late` for each question that was not answered within its patience. Waiting keeps no process running. */
export const openQuestions = (late: (patienceMs: number) => void): Questions => {
  const waiting = new Map<number, Question>()
  let lastId = 0

  /** A turn later: answers that came while this process was stopped, as by SIGSTOP, are read first. */
  const giveUp = (id: number, patienceMs: number): void =>
    void setImmediate(() => {
      if (waiting.has(id)) late(patienceMs)
    })

  return {
    add: (settle, patienceMs) => {
      lastId = (lastId % largestId) + 1
      waiting.set(lastId, { settle, timer: setTimeout(giveUp, patienceMs, lastId, patienceMs).unref() })
      return lastId
    },
    answer: (record) => {
      const question = waiting.get(record.id)
      if (question === undefined) return false
      waiting.delete(record.id)
      clearTimeout(question.timer)
      question.settle(record)
      return true
    },
    end: () => {
      const questions = [...waiting.values()]
      waiting.clear()
      for (const { settle, timer } of questions) {
        clearTimeout(timer)
        settle(undefined)
      }
    },
  }
}

/** An id has 32 bits. */
const largestId = 0xffff_ffff
