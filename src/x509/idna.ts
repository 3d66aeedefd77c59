/**
 * Internationalised labels: an A-label is valid when it decodes to a U-label of IDNA2008 (RFC 5891 4.2, 5892), of which it is the
 * only encoding. Stricter than the RFC where that is simpler: joiners (CONTEXTJ) are refused.
 */

/** Is this label, which begins with `xn--` and is in lower case, the one encoding of a valid U-label? */
export const isALabel = (label: string): boolean => {
  const points = decodeLabel(label)
  return points !== undefined && isULabel(String.fromCodePoint(...points))
}

/** Might it have been an A-label by older rules, or by another Unicode? It decodes to letters, marks and digits in normal form. */
export const isEncodedLabel = (label: string): boolean => {
  const points = decodeLabel(label)
  if (points === undefined) return false
  const text = String.fromCodePoint(...points)
  return text.normalize('NFC') === text && [...text].every((char) => contexts.has(char) || lettersAndMore.test(char))
}

const decodeLabel = (label: string): number[] | undefined => {
  const points = decodePunycode(label.slice(4))
  return points?.some((point) => point >= 0x80) ? points : undefined
}

/** Does this label, in whatever form, mix scripts that do not belong together? For profiles that refuse it. */
export const isMixedScript = (label: string): boolean => {
  const points = label.startsWith('xn--') ? decodePunycode(label.slice(4)) : undefined
  const text = points === undefined ? label : String.fromCodePoint(...points)
  const used = scripts.filter(([, pattern]) => pattern.test(text)).map(([name]) => name)
  // Of what is listed nowhere, it is enough that it is another.
  if (unlisted.test(text)) used.push('another')
  return used.length > 1 && !together.some((set) => used.every((name) => set.includes(name)))
}

const isULabel = (text: string): boolean => {
  if (text.normalize('NFC') !== text || /^\p{M}/u.test(text) || /^-|-$|^..--/u.test(text)) return false
  return [...text].every((char, i, all) => isValidPoint(char, i, all)) && !isMixedDirection(text)
}

/** RFC 5892 2 and appendix A, by Unicode properties instead of tables. */
const isValidPoint = (char: string, i: number, all: readonly string[]): boolean => {
  const context = contexts.get(char)
  if (context !== undefined) return context(all[i - 1] ?? '', all[i + 1] ?? '', all.join(''))
  if (alwaysValid.includes(char)) return true
  if (neverValid.includes(char) || ignorableBlocks.test(char) || oldHangul.test(char)) return false
  return /^[-\p{Lu}\p{Ll}\p{Lo}\p{Lm}\p{Mn}\p{Mc}\p{Nd}]$/u.test(char) && isStable(char)
}

/** Unchanged by compatibility normalisation and case folding (RFC 5892 2.2), which is more than being in lower case. */
const isStable = (char: string): boolean => !/\p{Changes_When_NFKC_Casefolded}/u.test(char)

/**
 * RFC 5893 2, of each label by itself: where there is anything that is written from right to left, there is nothing else but
 * digits of one kind, hyphens and marks; a letter comes first, and no hyphen last, whatever marks it has. Stricter than the
 * RFC where that is simpler: marks of scripts that go the other way are refused.
 */
const isMixedDirection = (text: string): boolean =>
  rightToLeft.test(text) &&
  (!onlyRightToLeft.test(text) || /^\p{N}|-\p{M}+$/u.test(text) || (europeanDigit.test(text) && arabicDigit.test(text)))

/**
 * RFC 3492 6.2. The bound on the characters bounds the work. Numbers do not wrap here (6.4): one that grows too large is beyond
 * Unicode. What this takes is the only encoding of what it gives (3): in lower case, with a hyphen only behind characters, and
 * each number has one form.
 */
const decodePunycode = (text: string): number[] | undefined => {
  if (!/^[a-z0-9-]{1,59}$/.test(text)) return undefined
  const split = text.lastIndexOf('-')
  if (split === 0) return undefined
  const output = [...text.slice(0, Math.max(split, 0))].map((char) => char.charCodeAt(0))
  let [n, i, bias] = [128, 0, 72]
  for (let at = split + 1; at < text.length; ) {
    const before = i
    for (let weight = 1, k = 36; ; k += 36) {
      const digit = digits.indexOf(text[at++] ?? '!')
      if (digit < 0) return undefined
      i += digit * weight
      const threshold = Math.min(26, Math.max(1, k - bias))
      if (digit < threshold) break
      weight *= 36 - threshold
    }
    bias = adapt(i - before, output.length + 1, before === 0)
    n += Math.floor(i / (output.length + 1))
    i %= output.length + 1
    if (n > 0x10ffff || (n >= 0xd800 && n < 0xe000)) return undefined
    output.splice(i++, 0, n)
  }
  return output
}

const adapt = (delta: number, length: number, first: boolean): number => {
  let rest = first ? Math.floor(delta / 700) : Math.floor(delta / 2)
  rest += Math.floor(rest / length)
  let k = 0
  for (; rest > 455; k += 36) rest = Math.floor(rest / 35)
  return k + Math.floor((36 * rest) / (rest + 38))
}

const digits = 'abcdefghijklmnopqrstuvwxyz0123456789'
/** Where Unicode puts what is written from right to left (DerivedBidiClass: R, AL and AN), with its digits and marks. */
const fromTheRight = '\\u0590-\\u08ff\\ufb1d-\\ufdff\\ufe70-\\ufefe\\u{10800}-\\u{10fff}\\u{1e800}-\\u{1efff}'
const rightToLeft = new RegExp(`[${fromTheRight}]`, 'u')
const onlyRightToLeft = new RegExp(`^[${fromTheRight}\\p{Script=Inherited}0-9-]+$`, 'u')
/** Bidi classes EN and AN, of what a label may hold. */
const europeanDigit = /[0-9\u06f0-\u06f9]/
const arabicDigit = /[\u0660-\u0669\u{10d30}-\u{10d39}]/u

/** RFC 5892 2.6, exceptions (F). */
const alwaysValid = '\u00df\u03c2\u06fd\u06fe\u0f0b\u3007'
const neverValid = '\u0640\u07fa\u302e\u302f\u3031\u3032\u3033\u3034\u3035\u303b'

/** RFC 5892 2.4: combining marks for symbols, and notes of music. */
const ignorableBlocks = /[\u20d0-\u20ff\u{1d100}-\u{1d24f}]/u

/** RFC 5892 2.9. What is ignorable (2.3, 2.8) is not stable, or of none of the categories that are taken. */
const oldHangul = /[\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff]/

const lettersAndMore = /[-\p{L}\p{M}\p{N}\u06fd\u06fe\u0f0b]/u

type ContextRule = (before: string, after: string, text: string) => boolean
const afterHebrew: ContextRule = (before) => /\p{Script=Hebrew}/u.test(before)

/** RFC 5892 appendix A. Arabic digits of two kinds in one label (A.8, A.9) are refused for their directions. */
const contexts = new Map<string, ContextRule>([
  ['\u00b7', (before, after) => before === 'l' && after === 'l'],
  ['\u0375', (_before, after) => /\p{Script=Greek}/u.test(after)],
  ['\u05f3', afterHebrew],
  ['\u05f4', afterHebrew],
  ['\u30fb', (_before, _after, text) => /[\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Han}]/u.test(text)],
  ['\u200c', () => false],
  ['\u200d', () => false],
])

/** All that people write today (UAX 31, tables 5 and 7), and Coptic. */
const scripts = `
  Latin Greek Cyrillic Armenian Hebrew Arabic Georgian Devanagari Thai Hangul Hiragana Katakana Han Bopomofo
  Bengali Ethiopic Gujarati Gurmukhi Kannada Khmer Lao Malayalam Myanmar Oriya Sinhala Tamil Telugu Thaana Tibetan
  Adlam Balinese Bamum Batak Canadian_Aboriginal Chakma Cham Cherokee Hanifi_Rohingya Javanese Kayah_Li Lepcha Limbu Lisu
  Mandaic Meetei_Mayek Miao Mongolian New_Tai_Lue Newa Nko Nyiakeng_Puachue_Hmong Ol_Chiki Osage Saurashtra Sundanese
  Syloti_Nagri Syriac Tai_Le Tai_Tham Tai_Viet Tifinagh Vai Wancho Yi Coptic`
  .trim()
  .split(/\s+/)
  .map((name) => [name, new RegExp(`\\p{Script=${name}}`, 'u')] as const)
const unlisted = new RegExp(
  `(?![\\p{Script=Common}\\p{Script=Inherited}${scripts.map(([name]) => `\\p{Script=${name}}`).join('')}]).`,
  'su',
)
/** Scripts that one language writes together (UTS 39 5.1). */
const together = [
  ['Latin', 'Han', 'Hiragana', 'Katakana'],
  ['Latin', 'Han', 'Hangul'],
  ['Latin', 'Han', 'Bopomofo'],
]
