/** What is under way, for whoever waits; the report alone goes to standard output. */
export const tell = (line: string): void => {
  process.stderr.write(`bench: ${line}\n`)
}
