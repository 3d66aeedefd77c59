/** How far long work has come: a bar on a terminal, a line now and then elsewhere. */

export interface ProgressDeps {
  readonly isTerminal: boolean
  /** Of the terminal; undefined where it does not say. */
  readonly columns?: number | undefined
  readonly write: (text: string) => void
  /** Milliseconds. */
  readonly now: () => number
}

export interface Progress {
  update(done: number, total: number): void
  /** Something to read beside it. */
  tell(line: string): void
  end(): void
}

export const openProgress = ({ isTerminal, columns = 80, write, now }: ProgressDeps): Progress => {
  const began = now()
  let first: number | undefined
  let toldAt = Number.NEGATIVE_INFINITY
  let shown = ''
  return {
    update: (done, total) => {
      first ??= done
      if (!isTerminal && now() - toldAt < lineMs && done < total) return
      toldAt = now()
      const words = progressText({ done, total, made: done - first, seconds: (now() - began) / 1_000 })
      shown = isTerminal ? `${barText(done / total, columns - wordsWidth)}${words}`.slice(0, columns - 1) : words
      write(isTerminal ? `\r${shown}${clear}` : `${shown}\n`)
    },
    tell: (line) => write(isTerminal ? `\r${clear}${line}\n${shown}` : `${line}\n`),
    end: () => {
      if (isTerminal && shown !== '') write('\n')
    },
  }
}

/** Where standard error leads. */
export const openStderrProgress = (): Progress =>
  openProgress({
    isTerminal: process.stderr.isTTY === true,
    // Of some, as those of containers, the system says 0.
    columns: process.stderr.columns || undefined,
    write: (text) => process.stderr.write(text),
    now: () => performance.now(),
  })

interface Pace {
  readonly done: number
  readonly total: number
  /** Since it is watched. */
  readonly made: number
  readonly seconds: number
}

/** `45,000 of 100,000 (45 %), 3,200/s, 17 s left`. */
export const progressText = ({ done, total, made, seconds }: Pace): string => {
  const pace = seconds > 0 ? made / seconds : 0
  const percent = Math.floor((100 * done) / total)
  const parts = [`${countText(done)} of ${countText(total)} (${percent} %)`]
  if (pace > 0 && done < total)
    parts.push(`${countText(Math.round(pace))}/s`, `${durationText((total - done) / pace)} left`)
  return parts.join(', ')
}

export const countText = (count: number): string => count.toLocaleString('en')

/** For what goes on: `17 s`, `3 min 20 s`, `2 h 5 min`. */
export const durationText = (seconds: number): string => {
  const whole = Math.max(0, Math.ceil(seconds))
  if (whole < 60) return `${whole} s`
  if (whole < 3_600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  return `${Math.floor(whole / 3_600)} h ${Math.floor((whole % 3_600) / 60)} min`
}

/** Nothing is rounded, and nothing left out but what is 0: `90 d`, `1 min 30 s`, `1 h 1 s`. */
export const exactDurationText = (seconds: number): string => {
  let rest = Math.max(0, Math.ceil(seconds))
  const parts: string[] = []
  for (const [unit, length] of units) {
    const count = Math.floor(rest / length)
    rest -= count * length
    if (count > 0) parts.push(`${count} ${unit}`)
  }
  return parts.join(' ') || '0 s'
}

const units = [
  ['d', 86_400],
  ['h', 3_600],
  ['min', 60],
  ['s', 1],
] as const

const barText = (fraction: number, room: number): string => {
  const width = Math.min(40, room)
  if (width < 8) return ''
  const full = Math.floor(fraction * width)
  return `[${'#'.repeat(full)}${'.'.repeat(width - full)}] `
}

/** Of the longest that are likely, so that the bar keeps its width. */
const wordsWidth = 58
const lineMs = 5_000
const clear = '\x1b[K'
