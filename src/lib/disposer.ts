/** What is put together part by part: closed in reverse order, at the end or where a later part does not open. */

export interface Parts {
  /** What closes a part that was opened just now. Throws why, where the whole is no longer wanted. */
  add(close: () => unknown): void
  /**
   * Each once, the last first. One that fails keeps none from being closed; throws the first failure. Whoever closes meanwhile
   * waits for the same.
   */
  close(): Promise<void>
}

/**
 * Opens part after part. Where one throws, or when `stop` is aborted between two, those before it are closed before it is told.
 */
export const openParts = async <T>(open: (parts: Parts) => Promise<T>, stop?: AbortSignal): Promise<T> => {
  const closers: (() => unknown)[] = []
  const closeAll = async (): Promise<void> => {
    const failures: unknown[] = []
    for (let next = closers.pop(); next; next = closers.pop())
      try {
        await next()
      } catch (error) {
        failures.push(error)
      }
    if (failures.length > 0) throw failures[0]
  }
  const add = (closer: () => unknown): void => {
    closers.push(closer)
    stop?.throwIfAborted()
  }
  let closing: Promise<void> | undefined
  const close = (): Promise<void> => {
    closing ??= closeAll().finally(() => {
      closing = undefined
    })
    return closing
  }
  try {
    stop?.throwIfAborted()
    return await open({ add, close })
  } catch (error) {
    // Whoever reads the sentence need not know what came of it.
    await close().catch(() => {})
    throw error
  }
}
