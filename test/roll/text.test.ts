/** The small pieces of which all that is read of a roll is made. */
import t from 'tap'

import { isEqual, readText } from '../../src/roll/text.ts'

t.test('octets are equal to as many of the same, and to nothing that they begin', (t) => {
  const octets = Uint8Array.of(1, 2, 3)
  t.equal(isEqual(octets, Uint8Array.of(1, 2, 3)), true)
  for (const other of [[], [1, 2], [1, 2, 4], [0, 2, 3], [1, 2, 3, 0]].map((of) => Uint8Array.from(of))) {
    t.equal(isEqual(octets, other), false, `${other}`)
    t.equal(isEqual(other, octets), false, `${other}`)
  }
  t.end()
})

t.test('a text is one that could have come as octets, and no longer than it may be', (t) => {
  const read = (text: string | Uint8Array) => readText(text, 'note.text', 4)
  for (const text of ['', 'abcd', '\u{1f511}']) t.same([read(text), read(Buffer.from(text))], [text, text])
  for (const text of ['abcde', '\ud83d', '\udd11\ud83d', Buffer.from('abcde'), Buffer.from('ff', 'hex')])
    t.throws(() => read(text), { code: 'note.text' })
  t.end()
})
