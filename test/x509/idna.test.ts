/** A-labels against another's encoder: that of ICU, in Node. */
import { domainToASCII, domainToUnicode } from 'node:url'

import t from 'tap'

import { isALabel, isEncodedLabel } from '../../src/x509/idna.ts'

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
  for (const label of ['xn--ll-0ea', 'xn--al-0ea', 'xn--11b2er09f']) t.ok(isEncodedLabel(label), label)
  t.notOk(isEncodedLabel('xn--cafe-yvc'))
})

t.test('from right to left, a hyphen that has a mark may stand inside (RFC 5893 2)', async (t) => {
  t.ok(isALabel('xn----lgc7ec')) // Hebrew, a hyphen with a mark, Hebrew
  t.ok(isALabel('xn----zhcb'))
  t.notOk(isALabel('xn----lgc7e')) // Hebrew, a hyphen with a mark
})
