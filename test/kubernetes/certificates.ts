/** Certificates as Chancery would issue them, made here for whoever hands them over. */
import { createPrivateKey, generateKeyPairSync, type KeyObject, sign, X509Certificate } from 'node:crypto'

import type { IssuedCertificate } from '../../src/kubernetes/decide/outcome.ts'
import { encodePem } from '../../src/x509/pem.ts'

/** PEM of leaf, intermediate and root for this key, from an hour before `now`. */
export const issueFor = (spki: Buffer, now: Date, validity = 86_400): IssuedCertificate & { readonly root: string } => {
  const root = newCa('Test Root')
  const ca = newCa('Test Intermediate')
  const span = { from: new Date(now.getTime() - 3_600_000), to: new Date(now.getTime() + (validity - 3_600) * 1_000) }
  const wide = { from: new Date(0), to: new Date('2040-01-01T00:00:00Z') }
  const rootPem = make({ ...wide, subject: root.name, spki: root.spki, by: root, serial: 1 })
  const caPem = make({ ...wide, subject: ca.name, spki: ca.spki, by: root, serial: 2 })
  const leaf = make({ ...span, subject: 'leaf', spki, by: ca, serial: 3 })
  return { serial: `${'0'.repeat(31)}3`, issuer: 'default', certificate: leaf, chain: [caPem, rootPem], root: rootPem }
}

interface Ca {
  readonly name: string
  readonly key: KeyObject
  readonly spki: Buffer
}

const newCa = (name: string): Ca => {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const key = createPrivateKey(privateKey.export({ type: 'pkcs8', format: 'pem' }))
  return { name, key, spki: publicKey.export({ type: 'spki', format: 'der' }) }
}

interface Making {
  readonly subject: string
  readonly spki: Buffer
  readonly by: Ca
  readonly serial: number
  readonly from: Date
  readonly to: Date
}

const make = ({ subject, spki, by, serial, from, to }: Making): string => {
  const algorithm = der(0x30, der(0x06, Buffer.from('2b6570', 'hex')))
  const validity = der(0x30, time(from), time(to))
  const version = der(0xa0, der(0x02, Buffer.from([2])))
  const tbs = der(
    0x30,
    version,
    der(0x02, Buffer.from([serial])),
    algorithm,
    name(by.name),
    validity,
    name(subject),
    spki,
  )
  const signature = sign(null, tbs, by.key)
  const pem = encodePem('CERTIFICATE', der(0x30, tbs, algorithm, der(0x03, Buffer.from([0]), signature)))
  return new X509Certificate(pem).toString()
}

const name = (commonName: string): Buffer =>
  der(0x30, der(0x31, der(0x30, der(0x06, Buffer.from('550403', 'hex')), der(0x0c, Buffer.from(commonName)))))

const time = (at: Date): Buffer => der(0x18, Buffer.from(`${at.toISOString().replace(/[-:T]/g, '').slice(0, 14)}Z`))

const der = (tag: number, ...parts: readonly Buffer[]): Buffer => {
  const content = Buffer.concat(parts)
  const { length } = content
  const octets = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from([tag, ...octets]), content])
}
