/**
 * Instants as RFC 3339 in UTC, as `toISOString` writes them, the newest one kept: a batch has one time, and certificates of one
 * second have their validity in common. V8 takes 0.7 µs to write one.
 */
export const openInstants = (): ((milliseconds: number) => string) => {
  let newest = Number.NaN
  let text = ''
  return (milliseconds) => {
    if (milliseconds !== newest) {
      text = new Date(milliseconds).toISOString()
      newest = milliseconds
    }
    return text
  }
}
