import t from 'tap'

import { isProblem } from '../../src/errors.ts'
import { acceptedSpellings, assertMediaType, negotiate } from '../../src/http/media.ts'
import { cpu } from '../helpers/cpu.ts'

const certificates = ['application/json', 'application/pem-certificate-chain', 'application/pkix-cert'] as const

t.test('Accept chooses by quality, then by the order in which a call offers', (t) => {
  const cases: [string | undefined, string | undefined][] = [
    [undefined, 'application/json'],
    ['*/*', 'application/json'],
    ['', undefined],
    ['application/*', 'application/json'],
    ['application/pem-certificate-chain', 'application/pem-certificate-chain'],
    ['APPLICATION/PKIX-CERT', 'application/pkix-cert'],
    ['application/json;q=0.5, application/pkix-cert', 'application/pkix-cert'],
    ['application/json;q=0, */*', 'application/pem-certificate-chain'],
    ['text/html, application/xhtml+xml, */*;q=0.8', 'application/json'],
    ['text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2', 'application/json'],
    ['application/json;q=.', undefined],
    ['application/json;q=.0, application/pkix-cert;q=.1', 'application/pkix-cert'],
    ['application/pkix-cert;q=0.9, application/*;q=0.1', 'application/pkix-cert'],
    ['text/html', undefined],
    ['application/json;q=2', undefined],
    ['application/json;q=nope', undefined],
    ['application/json;q=1.5, application/pkix-cert', 'application/pkix-cert'],
    ['application/json;q=21, application/pkix-cert', 'application/pkix-cert'],
    ['application/pkix-cert;header=present;q=0.5, application/json;q=0.4', 'application/pkix-cert'],
    [`${'text/html,'.repeat(10_000)}application/json`, undefined],
  ]
  for (const [accept, expected] of cases) {
    const chosen = (() => {
      try {
        return negotiate(accept, certificates)
      } catch (error) {
        return isProblem(error, 'request.not_acceptable') ? undefined : String(error)
      }
    })()
    t.equal(chosen, expected, String(accept).slice(0, 60))
  }
  t.end()
})

t.test('Content-Type is exactly one of the spellings, whatever its case', (t) => {
  const spellings = acceptedSpellings(['application/json', 'application/pkcs10'])
  for (const header of [
    'application/json',
    'Application/JSON',
    'application/json; charset=utf-8',
    'application/json;charset=UTF-8',
    'application/json; charset="utf-8"',
    'application/json;charset="UTF-8"',
    'application/pkcs10',
  ]) {
    t.doesNotThrow(() => assertMediaType(header, spellings), header)
  }
  for (const header of [
    undefined,
    '',
    'application/json;',
    'application/json ',
    'application/json; charset=latin1',
    'application/json; charset="latin1"',
    'application/json; charset="utf-8',
    'application/pkcs10; charset="utf-8"',
    'application/pkcs10; charset=utf-8',
    'text/json',
    'application/json;q=1',
    'application/json\t',
  ]) {
    t.throws(() => assertMediaType(header, spellings), { code: 'request.media_type' }, String(header))
  }
  const words: readonly (readonly [header: string, detail: string])[] = [
    ['application/json; charset=latin1', 'Content-Type application/json takes no parameter but charset=utf-8.'],
    ['Application/JSON ;q=1', 'Content-Type application/json takes no parameter but charset=utf-8.'],
    ['application/pkcs10;charset=utf-8', 'Content-Type application/pkcs10 takes no parameter.'],
    ['text/json; charset=utf-8', 'Content-Type must be application/json or application/pkcs10.'],
  ]
  for (const [header, detail] of words)
    t.throws(() => assertMediaType(header, spellings), { message: `request.media_type: ${detail}` }, header)
  t.throws(() => assertMediaType('application/json', acceptedSpellings([])), {
    message: 'request.media_type: This call takes no body.',
  })
  t.end()
})

t.test('a field as long as all of them may be is read once, whatever is in it', (t) => {
  const spellings = acceptedSpellings(['application/json'])
  const begun = cpu()
  for (const motif of [' ', '\t', '\t ', ' ;', ';', 'a/', '"', ',']) {
    const field = `a${motif.repeat(16_000 / motif.length)}b`
    for (let i = 0; i < 4; i += 1) {
      t.throws(() => assertMediaType(field, spellings), { code: 'request.media_type' })
      t.throws(() => negotiate(field, certificates), { code: 'request.not_acceptable' })
    }
  }
  // Some milliseconds; each of 16,000 blanks alone took half a second, and nobody else was answered meanwhile.
  t.ok(cpu() - begun < 2_000)
  t.end()
})
