import fc from 'fast-check'
import t from 'tap'

import { DerReader } from '../../src/x509/der.ts'
import { encodeTime, instantOf, readGeneralizedTime, readTime } from '../../src/x509/time.ts'
import { tlv } from './build.ts'

const text = (iso: string): string => encodeTime(new Date(iso)).toString('latin1', 2)

t.test('UTCTime through 2049, GeneralizedTime from 2050, seconds cut off', async (t) => {
  t.equal(text('1950-01-01T00:00:00Z'), '500101000000Z')
  t.equal(text('2026-11-24T10:20:30.999Z'), '261124102030Z')
  t.equal(text('2049-12-31T23:59:59Z'), '491231235959Z')
  t.equal(text('2050-01-01T00:00:00Z'), '20500101000000Z')
  t.equal(text('9999-12-31T23:59:59Z'), '99991231235959Z')
})

t.test('times that a certificate cannot hold are a defect', async (t) => {
  for (const date of [new Date(Number.NaN), new Date('1949-12-31T23:59:59Z'), new Date('+010000-01-01T00:00:00Z')]) {
    t.throws(() => encodeTime(date), RangeError)
  }
})

t.test('every second comes back', async () => {
  const seconds = fc.date({
    min: new Date('1950-01-01T00:00:00Z'),
    max: new Date('9999-12-31T23:59:59Z'),
    noInvalidDate: true,
  })
  fc.assert(
    fc.property(seconds, (date) => {
      const whole = Math.floor(date.getTime() / 1000) * 1000
      return readTime(new DerReader(encodeTime(date), 'policy.lint'), 'time').getTime() === whole
    }),
    { seed: 20261124, numRuns: 2_000 },
  )
})

t.test('a year of before 100 is not taken for one of the last century', async (t) => {
  for (const said of ['00000101000000Z', '00500101000000Z', '00991231235959Z'])
    t.throws(() => readGeneralizedTime(new DerReader(tlv(0x18, Buffer.from(said)), 'policy.lint'), 'time'), {
      code: 'policy.lint',
    })
})

t.test('a Time is digits to the second and a Z, and a time that there is', async (t) => {
  const read = (said: string) =>
    readTime(new DerReader(tlv(said.length > 14 ? 0x18 : 0x17, Buffer.from(said)), 'policy.lint'), 't')
  t.same(read('240229235959Z'), new Date('2024-02-29T23:59:59Z'))
  t.same(read('20500101000000Z'), new Date('2050-01-01T00:00:00Z'))
  for (const said of [
    ...[
      '2602292359Z',
      '26022923595Z',
      '2602282359590',
      '2602282359590Z',
      '26021:000000Z',
      '260228235959z',
      '/60228235959Z',
      '2602282359:9Z',
      '26022823595aZ',
    ],
    ...['260229235959Z', '260431000000Z', '261301000000Z', '260001000000Z', '260100000000Z', '260132000000Z'],
    ...['260101240000Z', '260101006000Z', '260101000060Z', '20491231235959Z', '20500101000000.0Z', '205001010000000'],
  ])
    t.throws(() => read(said), { code: 'policy.lint' }, said)
  const early = tlv(0x18, Buffer.from('20491231235959Z'))
  t.same(
    readGeneralizedTime(new DerReader(early, 'policy.lint'), 't'),
    new Date('2049-12-31T23:59:59Z'),
    'in extensions',
  )
})

t.test('a day that no calendar has is no instant', async (t) => {
  t.same(instantOf('2024-02-29T00:30:00+01:00'), new Date('2024-02-28T23:30:00Z'))
  for (const bad of [
    '2026-02-29T00:00:00Z',
    '2026-04-31T10:00:00+01:00',
    '2026-13-01T00:00:00Z',
    '2026-01-01T25:00:00Z',
    '+002026-01-01T00:00:00Z',
    'soon',
    '',
  ])
    t.equal(instantOf(bad), undefined, bad)
})
