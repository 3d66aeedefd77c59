/** The difference of two short texts, line by line: `-` only before, `+` only after, two lines around each change. */
export const diffLines = (before: string, after: string): readonly string[] => {
  const old = before === '' ? [] : before.trimEnd().split('\n')
  const fresh = after === '' ? [] : after.trimEnd().split('\n')
  const marked = mark(old, fresh)
  const isNear = (place: number): boolean =>
    marked.slice(Math.max(0, place - context), place + context + 1).some((line) => !line.startsWith(' '))
  return marked.filter((_, place) => isNear(place))
}

/** By the longest common subsequence; quadratic, for documents of hundreds of lines. */
const mark = (old: readonly string[], fresh: readonly string[]): readonly string[] => {
  const common = longestCommon(old, fresh)
  const lines: string[] = []
  let i = 0
  let j = 0
  while (i < old.length || j < fresh.length) {
    const dropOld = i < old.length ? (common[i + 1]?.[j] ?? 0) : -1
    const addFresh = j < fresh.length ? (common[i]?.[j + 1] ?? 0) : -1
    if (i < old.length && j < fresh.length && old[i] === fresh[j]) {
      lines.push(`  ${old[i]}`)
      i += 1
      j += 1
    } else if (dropOld >= addFresh) {
      lines.push(`- ${old[i]}`)
      i += 1
    } else {
      lines.push(`+ ${fresh[j]}`)
      j += 1
    }
  }
  return lines
}

/** `common[i][j]`: how many lines `old` from i and `fresh` from j have in common, in order. */
const longestCommon = (old: readonly string[], fresh: readonly string[]): readonly (readonly number[])[] => {
  const common: number[][] = [...old, ''].map(() => new Array<number>(fresh.length + 1).fill(0))
  for (let i = old.length - 1; i >= 0; i--) {
    for (let j = fresh.length - 1; j >= 0; j--) {
      const row = common[i] ?? []
      row[j] =
        old[i] === fresh[j] ? (common[i + 1]?.[j + 1] ?? 0) + 1 : Math.max(common[i + 1]?.[j] ?? 0, row[j + 1] ?? 0)
    }
  }
  return common
}

const context = 2
