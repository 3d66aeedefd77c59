import t from 'tap'

import { ownProfile } from '../../src/server/own-certificates.ts'
import type { Name } from '../../src/x509/names.ts'

const namesOf = (names: readonly Name[]) => (ownProfile({ names }, 'default') as { readonly names: object }).names

/** Said in other words, it would be one more version on record, at the first start of another release. */
t.test('the profile of our own certificate is what it has always been', (t) => {
  const names: readonly Name[] = [
    { kind: 'dns', value: 'ca.example.com' },
    { kind: 'ip', value: '10.0.0.1' },
    { kind: 'ip', value: 'fd00::1' },
    { kind: 'dns', value: 'localhost' },
  ]
  const profile = {
    name: 'chancery-api-9a0b9e40',
    authority: 'default',
    validity: { default: '24h', max: '24h', over: 'shorten', backdate: '5m' },
    keys: [{ ec: ['P-256'] }],
    subject: { others: 'refuse' },
    names: { dns: { allow: ['ca.example.com', 'localhost'] }, ip: { allow: ['10.0.0.1/32', 'fd00::1/128'] } },
    keyUsage: ['digitalSignature'],
    extendedKeyUsage: ['serverAuth'],
    revocation: ['crl', 'ocsp'],
  }
  t.same(ownProfile({ names }, 'default'), profile)
  t.same(namesOf(names.slice(0, 1)), { dns: { allow: ['ca.example.com'] } })
  t.same(namesOf(names.slice(1, 2)), { ip: { allow: ['10.0.0.1/32'] } })
  t.end()
})

t.test('it takes forms of names only where ours have them', (t) => {
  for (const [value, form] of [
    ['*.ca.example.com', { wildcards: true }],
    ['chancery_ca', { underscores: true }],
    ['xn--bcher-kva.example', { internationalized: true }],
  ] as const) {
    const allow = ['ca.example.com', value]
    t.same(namesOf(allow.map((value) => ({ kind: 'dns', value }))), { dns: { allow, ...form } })
  }
  t.end()
})
