/** Answers that are put together as octets: what Node's own base64 says, line by line, for every length. */
import { randomBytes } from 'node:crypto'

import t from 'tap'

import { asciiAnswer } from '../../src/http/octets.ts'
import { encodePem } from '../../src/x509/pem.ts'

t.test('base64 of every length, padded', async (t) => {
  for (let length = 0; length < 200; length += 1) {
    const octets = randomBytes(length)
    const answer = asciiAnswer((to) => to.base64(octets))
    if (answer.toString('latin1') !== octets.toString('base64')) t.fail(`of ${length} octets`)
  }
  const every = Buffer.from(Array.from({ length: 65_536 }, (_, i) => [i >> 8, i & 0xff, (i * 7) & 0xff]).flat())
  const answer = asciiAnswer((to) => {
    to.text('what is there before it takes more room')
    to.base64(every)
  })
  t.equal(answer.toString('latin1'), `what is there before it takes more room${every.toString('base64')}`)
})

t.test('lines as PEM has them, in text and in JSON', async (t) => {
  for (const length of [1, 2, 3, 47, 48, 49, 95, 96, 97, 700, 48_000, 70_001]) {
    const der = randomBytes(length)
    for (const lineEnd of ['\n', '\\n'] as const) {
      const answer = asciiAnswer((to) => {
        to.text(`-----BEGIN CERTIFICATE-----${lineEnd}`)
        to.base64(der, lineEnd)
        to.text(`-----END CERTIFICATE-----${lineEnd}`)
      })
      if (answer.toString('latin1') !== encodePem('CERTIFICATE', der).replaceAll('\n', lineEnd))
        t.fail(`of ${length} octets`)
    }
  }
  t.pass('the same as encodePem')
})

t.test('an answer is its own, whatever is put together after it', async (t) => {
  const answers = ['a', 'b', 'c'].map((text) => asciiAnswer((to) => to.text(text.repeat(20_000))))
  t.same(
    answers.map((answer) => [answer.length, String.fromCharCode(...new Set(answer))]),
    [
      [20_000, 'a'],
      [20_000, 'b'],
      [20_000, 'c'],
    ],
  )
  t.equal(asciiAnswer(() => {}).length, 0)
})

t.test('one that fails half-way leaves nothing to the next', async (t) => {
  t.throws(() =>
    asciiAnswer((to) => {
      to.text('half')
      throw new Error('no')
    }),
  )
  t.equal(asciiAnswer((to) => to.text('whole')).toString('latin1'), 'whole')
})
