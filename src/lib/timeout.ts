/**
 * What does not answer in time is given up; it may still answer, to nobody. (By `Promise.race`, three more promises are made
 * for each, and several of these are on the way of every certificate.)
 */
export const withDeadline = <T>(work: Promise<T>, milliseconds: number): Promise<T | 'late'> =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds, 'late' as const)
    work.then(
      (answer) => {
        clearTimeout(timer)
        resolve(answer)
      },
      (error: unknown) => {
        clearTimeout(timer)
        reject(error)
      },
    )
  })
