/** What is said of a token that is not asked: with the command that lets it be tried again, as a shell takes it. */
import { scryptSync } from 'node:crypto'

import t from 'tap'

import { assertMayTry } from '../../src/keys/pkcs11/pins.ts'

const said = (act: () => void): string => {
  try {
    act()
    return ''
  } catch (error) {
    return (error as Error).message
  }
}

t.test('each way out names the token', (t) => {
  const salt = '00'.repeat(16)
  const options = { N: 2 ** 15, r: 8, p: 1, maxmem: 64 * 1024 * 1024 }
  const digest = scryptSync('1234', Buffer.from(salt, 'hex'), 32, options).toString('hex')
  const nothing = { refused: [], unfinished: 0, unlatched: false }
  for (const [what, isLastTry, past] of [
    ['a PIN that was refused', false, { ...nothing, refused: [{ token: 'ca', serial: '1', salt, digest }] }],
    ['tries whose end nobody saw', false, { ...nothing, unfinished: 2 }],
    ['the last try', true, nothing],
  ] as const)
    for (const [label, word] of [
      ['ca', 'ca'],
      ["the CA's token", "'the CA'\\''s token'"],
    ] as const) {
      const told = said(() => assertMayTry({ label, isLastTry }, '1234', past))
      t.ok(told.includes(`say "chancery key unlatch ${word}"`), `${what}: ${told}`)
    }
  t.equal(
    said(() => assertMayTry({ label: 'ca', isLastTry: false }, '1234', nothing)),
    '',
  )
  t.end()
})
