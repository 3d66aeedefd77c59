/** What is handed over as a certificate, and what is taken for roots that others may trust. */
import t from 'tap'

import { areRoots, deliver } from '../../src/kubernetes/decide/delivery.ts'
import { encodePem } from '../../src/x509/pem.ts'
import { newP256 } from '../x509/build.ts'
import { issueFor } from './certificates.ts'

const now = new Date('2026-11-24T23:20:00Z')
const { spki: requestKey } = newP256()
const good = issueFor(requestKey, now)

t.test('a certificate with a key that Node cannot read is never handed over', async (t) => {
  const der = Buffer.from(good.certificate.replace(/-----.*-----|\s/g, ''), 'base64')
  const at = der.lastIndexOf(Buffer.from('2a8648ce3d030107', 'hex'))
  t.ok(at > 0)
  der[at + 7] = 0x77
  const issued = { ...good, certificate: encodePem('CERTIFICATE', der) }
  t.match(deliver(issued, { requestKey, now }), { fault: /key that cannot be read/ })
})

t.test('whether it has expired goes by the clock of Chancery, where that is known', async (t) => {
  const delivery = deliver(good, { requestKey, now })
  if ('fault' in delivery) throw new Error(delivery.fault)
  const { serial, notBefore, notAfter } = delivery
  t.equal(serial, good.serial)
  t.equal(notAfter.getTime() - notBefore.getTime(), 86_400_000)
  const expired = { fault: `certificate ${serial} expired before it could be handed over` }
  // The second that it names is within (RFC 5280 4.1.2.5).
  const [last, over] = [999, 1_000].map((ms) => new Date(notAfter.getTime() + ms)) as [Date, Date]
  t.match(deliver(good, { requestKey, now: last }), { serial })
  t.same(deliver(good, { requestKey, now: over }), expired)
  t.match(deliver({ ...good, answeredAt: last }, { requestKey, now: over }), { serial })
  t.same(deliver({ ...good, answeredAt: over }, { requestKey, now }), expired)
})

t.test('what is no root is none to trust', async (t) => {
  t.ok(areRoots(good.root) && areRoots(good.root + good.root))
  const [above = ''] = good.chain
  for (const text of ['', 'junk', good.certificate, `${good.root}junk`, `junk\n${good.root}`, above])
    t.notOk(areRoots(text), text.slice(0, 40))
  for (const text of [good.root + above, above + good.root, good.root + good.certificate])
    t.notOk(areRoots(text), 'also where a root is beside it')
  const changed = (change: (der: Buffer) => void): string => {
    const der = Buffer.from(good.root.replace(/-----.*-----|\s/g, ''), 'base64')
    change(der)
    return encodePem('CERTIFICATE', der)
  }
  t.ok(areRoots(changed(() => {})))
  const signedByAnother = changed((der) => der.writeUInt8((der.at(-1) ?? 0) ^ 1, der.length - 1))
  t.notOk(areRoots(signedByAnother), 'by its names alone it is none')
  // Of id-Ed25519 in its key, the last octet.
  const unread = changed((der) => der.writeUInt8(0x77, der.indexOf('032b6570032100', 0, 'hex') + 3))
  t.notOk(areRoots(unread), 'nor with a key that Node cannot read')
})

t.test('each certificate of a chain ends its line, however it came', async (t) => {
  const [above = ''] = good.chain
  const ended = `${good.certificate.trimEnd()}\n${above.trimEnd()}\n`
  for (const end of ['', '\n', '\r\n\n']) {
    const [certificate = '', ...chain] = [good.certificate, ...good.chain].map((pem) => `${pem.trimEnd()}${end}`)
    t.match(deliver({ ...good, certificate, chain }, { requestKey, now }), { chain: ended })
  }
})
