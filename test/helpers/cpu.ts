/** Milliseconds of processor time that this thread has used: what a busy machine does to others does not count. */
export const cpu = (): number => {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1000
}
