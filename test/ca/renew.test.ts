/** What is renewed into what, apart from the records. */
import t from 'tap'

import type { Held } from '../../src/ca/holders.ts'
import { asRenewal } from '../../src/ca/renew.ts'
import type { Profile } from '../../src/policy/profile.ts'
import type { CertificationRequest } from '../../src/x509/csr.ts'

const profile = { name: 'any', subject: [], renewal: { key: 'any' } } as unknown as Profile
const spki = Buffer.from('key')
const csr = { names: [], subject: [], key: { spki } } as unknown as CertificationRequest
const holding = (...values: readonly string[]): Held =>
  ({ spki, subject: [], names: values.map((value) => ({ kind: 'dns', value })) }) as unknown as Held

t.test('a name that was taken for one once is not certified again', async (t) => {
  t.match(asRenewal(profile, holding('a.example', 'xn--bcher-kva.example'), csr).names, [{}, {}])
  // U+1C80, which looks like a Cyrillic letter and folds to it.
  t.throws(() => asRenewal(profile, holding('a.example', 'xn--23f.example'), csr), { code: 'san.syntax' })
})
