/** A label as RFC 3492 encodes it, whatever it holds: ICU encodes only what it takes for a label. */
export const encodeLabel = (text: string): string => {
  const points = [...text].map((char) => char.codePointAt(0) as number)
  const basic = points.filter((point) => point < 0x80)
  let output = String.fromCharCode(...basic) + (basic.length > 0 ? '-' : '')
  let [n, delta, bias, handled] = [128, 0, 72, basic.length]
  while (handled < points.length) {
    const next = Math.min(...points.filter((point) => point >= n))
    delta += (next - n) * (handled + 1)
    n = next
    for (const point of points) {
      if (point < n) delta++
      if (point !== n) continue
      output += encodeNumber(delta, bias)
      bias = adapt(delta, handled + 1, handled === basic.length)
      delta = 0
      handled++
    }
    delta++
    n++
  }
  return `xn--${output}`
}

const encodeNumber = (number: number, bias: number): string => {
  let [rest, output] = [number, '']
  for (let k = 36; ; k += 36) {
    const threshold = Math.min(26, Math.max(1, k - bias))
    if (rest < threshold) return output + digits[rest]
    output += digits[threshold + ((rest - threshold) % (36 - threshold))]
    rest = Math.floor((rest - threshold) / (36 - threshold))
  }
}

const adapt = (delta: number, length: number, first: boolean): number => {
  let rest = Math.floor(delta / (first ? 700 : 2))
  rest += Math.floor(rest / length)
  let k = 0
  for (; rest > 455; k += 36) rest = Math.floor(rest / 35)
  return k + Math.floor((36 * rest) / (rest + 38))
}

const digits = 'abcdefghijklmnopqrstuvwxyz0123456789'
