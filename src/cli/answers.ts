/** What a person types when asked. */
import { createInterface } from 'node:readline'

export interface Answers {
  /** Whether this was typed, in three tries; `again` is told of those that were not it. */
  match(answer: string, again: () => void): Promise<boolean>
  close(): void
}

/** Lines of one input, in turn; its end is no answer. */
export const openAnswers = (input: NodeJS.ReadableStream): Answers => {
  let reader: ReturnType<typeof createInterface> | undefined
  let lines: AsyncIterator<string> | undefined
  return {
    match: async (answer, again) => {
      reader ??= createInterface({ input })
      lines ??= reader[Symbol.asyncIterator]()
      for (let tries = 3; tries > 0; tries -= 1) {
        const { value, done } = await lines.next()
        if (done) return false
        if (value.trim().toLowerCase() === answer) return true
        if (tries > 1) again()
      }
      return false
    },
    close: () => reader?.close(),
  }
}

/** Reads from the terminal; undefined where there is none to ask at. */
export const withAnswers = async <T>(work: (answers: Answers | undefined) => Promise<T>): Promise<T> => {
  const answers = openAnswers(process.stdin)
  try {
    return await work(process.stdin.isTTY && process.stderr.isTTY ? answers : undefined)
  } finally {
    answers.close()
  }
}
