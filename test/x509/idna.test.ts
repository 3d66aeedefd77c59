/** A-labels against another's encoder: that of ICU, in Node. */
import { domainToASCII, domainToUnicode } from 'node:url'

import t from 'tap'

import { isALabel, isEncodedLabel, isMixedScript } from '../../src/x509/idna.ts'
import { encodeLabel } from './punycode.ts'

const pointsOf = (text: string): string => [...text].map((char) => `U+${char.codePointAt(0)?.toString(16)}`).join(' ')
const pairs = (some: readonly string[], others: readonly string[]): [string, string][] =>
  some.flatMap((one) => others.map((other): [string, string] => [one, other]))

/** Letters that mapping leaves as they are, far from each other and close together. */
const alphabets = [
  'abcxyz019-',
  'äößçøñþœŧ',
  'αβγδεζςω',
  'бвгджзђѣ',
  'कखगघङ',
  'กขคงจ',
  'ሀለሐመ',
  '中国港漢字一龥',
  '가나다한국',
  '𐌰𐌱𐌲𐍈',
  '𠀀𠮷𪚥𱍐',
]

t.test('what ICU encodes is an A-label, and only as it encodes it', async (t) => {
  let seed = 3492
  const pick = (count: number): number => {
    seed = (seed * 48_271) % 2_147_483_647
    return seed % count
  }
  const letter = (): string => {
    const letters = [...(alphabets[pick(alphabets.length)] as string)]
    return letters[pick(letters.length)] as string
  }
  const wrong: string[] = []
  let judged = 0
  for (let i = 0; i < 3000; i++) {
    const text = Array.from({ length: 1 + pick(20) }, letter).join('')
    const label = domainToASCII(text)
    if (!label.startsWith('xn--') || label.length > 63 || /^-|-$|^..--/u.test(text)) continue
    judged++
    if (!isALabel(label) || !isEncodedLabel(label)) wrong.push(`${label} is refused`)
    // With another letter, or cut, it stands for another text.
    const at = 4 + pick(label.length - 4)
    const other = label.slice(0, at) + 'abcdefghijklmnopqrstuvwxyz0123456789'[pick(36)] + label.slice(at + 1)
    for (const changed of [other, label.slice(0, -1)])
      if (
        isALabel(changed) &&
        (domainToUnicode(changed) === changed || domainToASCII(domainToUnicode(changed)) !== changed)
      )
        wrong.push(`${changed} is accepted`)
  }
  t.ok(judged > 2000, `${judged} labels`)
  t.same(wrong, [])
})

t.test('a label has 63 characters at most, all in lower case', async (t) => {
  const [longest, tooLong] = [57, 58].map((count) => domainToASCII('ü'.repeat(count))) as [string, string]
  t.same([longest.length, tooLong.length], [63, 64])
  for (const isLabel of [isALabel, isEncodedLabel]) {
    t.ok(isLabel(longest))
    t.notOk(isLabel(tooLong))
    t.ok(isLabel('xn--bcher-kva'))
    t.notOk(isLabel('xn--Bcher-kva'))
    t.notOk(isLabel('xn--bcher-kvA'))
    t.notOk(isLabel('xn--bcher-kv'), 'one that is cut')
  }
})

t.test('a label has one encoding, and one that says nothing is none', async (t) => {
  t.ok(isALabel('xn--p1ai'))
  for (const label of [
    'xn---p1ai',
    'xn--abc-',
    'xn--',
    'xn--bb0', // cut inside a number
    'xn--p1aiaa0',
    'xn--cd9bq2e', // U+D840, U+DC00: the halves of U+20000
  ]) {
    t.notOk(isALabel(label), label)
    t.notOk(isEncodedLabel(label), label)
  }
})

t.test('an older rule took letters in normal form alone, and what goes by what is beside it', async (t) => {
  for (const label of ['xn--ll-0ea', 'xn--al-0ea', 'xn--11b2er09f', 'xn--11b2ezcs70k'])
    t.ok(isEncodedLabel(label), label)
  for (const isLabel of [isALabel, isEncodedLabel]) t.notOk(isLabel('xn--cafe-yvc'))
  for (const text of ['a\u2603', 'a\u{1f600}', 'a\u00a0', 'a\ue000'])
    t.notOk(isEncodedLabel(encodeLabel(text)), pointsOf(text))
})

t.test('what RFC 5892 takes by name is taken, and what it leaves out is not', async (t) => {
  for (const text of [
    ...['a\u00df', 'a\u03c2', '\u0628\u06fd', '\u0628\u06fe', '\u0f40\u0f0b', '\u4e00\u3007'], // 2.6
    ...['\u10d0\u10ff', '\u1200', '\uac00\ud7a3'], // beside what is left out
    ...['\u3042\u30fb', '\u30fb\u30a2', '\u4e00\u30fb', '\u05d0\u05f3', '\u05d0\u05f4', '\u0375\u03b1', 'l\u00b7l'],
  ]) {
    t.ok(isALabel(encodeLabel(text)), pointsOf(text))
    t.ok(isEncodedLabel(encodeLabel(text)), pointsOf(text))
  }
  for (const text of [
    ...['\u0628\u0640', '\u07ca\u07fa'], // 2.6
    ...['\u302e', '\u302f', '\u3031', '\u3032', '\u3033', '\u3034', '\u3035', '\u303b'].map((one) => `\u4e00${one}`),
    ...['a\u20d0', 'a\u20f0', 'a\u{1d165}', 'a\u{1d16d}', 'a\u{1d242}', 'a\u{1d244}'], // 2.4
    ...['\u1100', '\u11ff', '\ua960', '\ua97c', '\ud7b0', '\ud7fb'], // 2.9
    ...['a\u00a0', 'a\u200c', 'a\u200d', 'a\u3000', 'a\ufdd0', 'a\ue000', 'a\u{10ffff}', 'a\u0378'],
    ...['a\u30fb', '\u0628\u05f3', '\u0628\u05f4', '\u0375a', 'l\u00b7', '\u00b7l'],
  ])
    t.notOk(isALabel(encodeLabel(text)), pointsOf(text))
})

t.test('what is written from right to left is told from what is not, in every block (RFC 5893 2)', async (t) => {
  const fromTheRight = [
    '\u05d0',
    '\u0620',
    '\u0710',
    '\u07ca',
    '\u0800',
    '\u0840',
    '\u0860',
    '\u08a0',
    '\u08c9',
    '\ufe73',
  ]
  fromTheRight.push('\u{10800}', '\u{10a00}', '\u{10fe0}', '\u{10ff6}', '\u{1e800}', '\u{1e922}')
  for (const char of fromTheRight) {
    t.ok(isALabel(encodeLabel(char)), pointsOf(char))
    t.ok(isALabel(encodeLabel(`${char}1`)), pointsOf(char))
    t.notOk(isALabel(encodeLabel(`${char}a`)), pointsOf(char))
    t.notOk(isALabel(encodeLabel(`a${char}`)), pointsOf(char))
    t.notOk(isALabel(encodeLabel(`1${char}`)), pointsOf(char))
  }
  for (const char of ['\u0588', '\u0904', '\u{11005}', '\u{1e7e0}', '\ua000'])
    t.ok(isALabel(encodeLabel(`${char}a`)), pointsOf(char))
})

t.test('from right to left, digits are of one kind (RFC 5893 2.2, RFC 5892 A.8)', async (t) => {
  const european = ['0', '9', '\u06f0', '\u06f9']
  const arabic = ['\u0660', '\u0669', '\u{10d30}', '\u{10d39}']
  for (const kind of [european, arabic])
    for (const [first, second] of pairs(kind, kind)) {
      t.ok(isALabel(encodeLabel(`\u0628${first}${second}`)), pointsOf(first + second))
      t.notOk(isALabel(encodeLabel(`${first}${second}\u0628`)), pointsOf(first + second))
    }
  for (const [first, second] of [...pairs(european, arabic), ...pairs(arabic, european)])
    t.notOk(isALabel(encodeLabel(`\u0628${first}${second}`)), pointsOf(first + second))
})

t.test('from right to left, a hyphen that has a mark may stand inside (RFC 5893 2)', async (t) => {
  t.ok(isALabel('xn----lgc7ec')) // Hebrew, a hyphen with a mark, Hebrew
  t.ok(isALabel('xn----zhcb'))
  t.notOk(isALabel('xn----lgc7e')) // Hebrew, a hyphen with a mark
  t.notOk(isALabel(encodeLabel('\u05d0-\u05b0\u05b7')))
  t.notOk(isALabel(encodeLabel('\u05d0-')))
  t.notOk(isALabel(encodeLabel('-\u05d0')))
  for (const mark of ['\u0301', '\ufb1e']) t.ok(isALabel(encodeLabel(`\u05d0${mark}`)), pointsOf(mark))
})

t.test('of two scripts that people write today, only those that one language writes together may meet', async (t) => {
  const together = [
    ['Latin', 'Han', 'Hiragana', 'Katakana'],
    ['Latin', 'Han', 'Hangul'],
    ['Latin', 'Han', 'Bopomofo'],
  ]
  const letters = new Map(written.map((script) => [script, letterOf(script)]))
  const wrong: string[] = []
  for (const [one, first] of letters)
    for (const [other, second] of letters) {
      const mayMeet = one === other || together.some((set) => set.includes(one) && set.includes(other))
      // A digit is of no script.
      for (const label of [first + second, encodeLabel(`${first}1${second}`)])
        if (isMixedScript(label) === mayMeet) wrong.push(`${one}, ${other}: ${label}`)
    }
  t.same(wrong, [])
  for (const [script, letter] of letters) t.equal(isMixedScript(`${gothic}${letter}`), true, `Gothic, ${script}`)
  t.equal(isMixedScript('xn--e-oeb'), false, 'a mark is of the script that it stands on')
  t.equal(isMixedScript(`shop${encodeLabel('a\u0431').slice(4)}`), false, 'nothing is encoded in it')
  for (const set of together) t.equal(isMixedScript(set.map((script) => letters.get(script)).join('')), false)
  for (const set of [
    ['Han', 'Hiragana', 'Hangul'],
    ['Han', 'Katakana', 'Bopomofo'],
    ['Latin', 'Han', 'Hiragana', 'Katakana', 'Greek'],
  ])
    t.equal(isMixedScript(set.map((script) => letters.get(script)).join('')), true, set.join(', '))
})

/** Of a script that is listed nowhere. */
const gothic = '\u{10330}'
/** UAX 31, tables 5 and 7, and Coptic. */
const written = `
  Adlam Arabic Armenian Balinese Bamum Batak Bengali Bopomofo Canadian_Aboriginal Chakma Cham Cherokee Coptic Cyrillic
  Devanagari Ethiopic Georgian Greek Gujarati Gurmukhi Han Hangul Hanifi_Rohingya Hebrew Hiragana Javanese Kannada
  Katakana Kayah_Li Khmer Lao Latin Lepcha Limbu Lisu Malayalam Mandaic Meetei_Mayek Miao Mongolian Myanmar
  New_Tai_Lue Newa Nko Nyiakeng_Puachue_Hmong Ol_Chiki Oriya Osage Saurashtra Sinhala Sundanese Syloti_Nagri Syriac
  Tai_Le Tai_Tham Tai_Viet Tamil Telugu Thaana Thai Tibetan Tifinagh Vai Wancho Yi`
  .trim()
  .split(/\s+/)

const letterOf = (script: string): string => {
  const letter = new RegExp(`(?=\\p{Script=${script}})[\\p{Ll}\\p{Lo}]`, 'u')
  for (let point = 0x61; ; point++) if (letter.test(String.fromCodePoint(point))) return String.fromCodePoint(point)
}
