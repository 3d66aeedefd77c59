/** The small pieces of which all that is read of a roll is made. */
import t from 'tap'

import { isRollFault, RollFault } from '../../src/tlog/fault.ts'
import { isEqual, readText } from '../../src/tlog/text.ts'

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

t.test('a fault is of its own code, and what only looks like one is none', (t) => {
  const fault = new RollFault('entry.type', 'its type is x, its version 1')
  t.same([isRollFault(fault), isRollFault(fault, 'entry.type'), isRollFault(fault, 'entry.form')], [true, true, false])
  for (const other of [new Error('entry.type'), { code: 'entry.type' }, undefined]) t.equal(isRollFault(other), false)
  t.end()
})
