import t from 'tap'

import { type Name, type NameKind, parseName } from '../../src/x509/names.ts'
import { keptNames, readNames } from '../../src/x509/names-kept.ts'

const namesOf = (texts: readonly (readonly [NameKind, string])[]): readonly Name[] =>
  texts.map(([kind, value]) => parseName(kind, value))

t.test('names come back in their order, of every kind', async (t) => {
  const names = namesOf([
    ['dns', 'b.example.com'],
    ['ip', 'fd00::1:2'],
    ['dns', '*.a.example.com'],
    ['email', 'Someone@example.com'],
    ['uri', 'spiffe://example.com/ns/Prod/sa/web'],
    ['ip', '10.20.30.40'],
  ])
  t.same(readNames(keptNames(names)), names)
  const many = namesOf(Array.from({ length: 100 }, (_, i) => ['dns', `${'n'.repeat(60)}.n${i}.example.com`]))
  t.same(readNames(keptNames(many)), many)
})

t.test('none are no octets', async (t) => {
  t.equal(keptNames([]).length, 0)
  t.same(readNames(Buffer.alloc(0)), [])
})

t.test('what is no names is none, and never a fault', async (t) => {
  for (const hex of ['30', '3000', '30ff', '3003820161ff', '04020000', '3003820120'])
    t.same(readNames(Buffer.from(hex, 'hex')), [], hex)
})
