/** Durations as documents and people write them: `90d`, `12h`, `30m`, `45s`. */

/** Seconds. The text is digits and a unit, as the schema of documents asserts. */
export const parseDuration = (text: string): number =>
  Number(text.slice(0, -1)) * (seconds[text.slice(-1)] ?? Number.NaN)

const seconds: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 }
