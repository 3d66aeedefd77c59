import t from 'tap'

import type { Issued } from '../../src/ca/issuance/issuance.ts'
import { issuedJson, issuedView } from '../../src/http/api/views.ts'

const hash = (octet: number): Buffer => Buffer.alloc(32, octet)

const issued = (changes: Partial<Issued> = {}): Issued => ({
  serial: '0a'.repeat(16),
  certificate: Buffer.alloc(700, 0x30),
  chain: [Buffer.alloc(500, 1), Buffer.alloc(600, 2)],
  profile: { name: 'server', version: 3 },
  issuer: 'default-2026',
  notBefore: new Date('2026-11-26T12:00:00Z'),
  notAfter: new Date('2026-11-27T12:00:00Z'),
  index: 70_000,
  leafHash: hash(3),
  proof: {
    index: 70_000,
    hashes: [hash(4), hash(5)],
    checkpoint: 'ca.example/roll\n70001\nBBBB\n\n— ca.example/roll AAAA\n',
  },
  notes: [],
  replayed: false,
  ...changes,
})

t.test('the answer of an issuance says what its view says, in ASCII', async (t) => {
  const note = {
    check: 'subject.dropped',
    field: '/subject',
    value: 'O=Café "東京"\\\n\u007f',
    reason: 'it is not kept',
  }
  const answers = [
    issued(),
    issued({ chain: [] }),
    issued({ replayed: true, notes: [note] as unknown as Issued['notes'] }),
    issued({ certificate: Buffer.alloc(40_000, 0x31) }),
    issued({ serial: '0b'.repeat(16) }),
  ]
  // All are made before the first is looked at: they lie side by side.
  const texts = answers.map(issuedJson)
  texts.forEach((text, i) => {
    t.ok(
      text.every((octet) => octet >= 0x20 && octet < 0x7f),
      'printable ASCII',
    )
    t.strictSame(JSON.parse(text.toString('latin1')), JSON.parse(JSON.stringify(issuedView(answers[i] as Issued))))
  })
})
