import { generateKeyPairSync, type KeyExportOptions, type KeyObject } from 'node:crypto'

import t from 'tap'

import { Problem } from '../../src/errors.ts'
import { batchBodyLimit } from '../../src/http/bounds.ts'
import { isPrivateKey, keyFirst } from '../../src/http/private-keys.ts'
import { cpu } from '../helpers/cpu.ts'
import { csrFor } from './people.ts'

const ofEdwards = generateKeyPairSync('ed25519')
const ofCurve = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const ofLargeCurve = generateKeyPairSync('ec', { namedCurve: 'P-521' })
const ofRsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
const inBase64 = (key: KeyObject, type: 'pkcs8' | 'pkcs1' | 'sec1' | 'spki'): string =>
  (key.export({ format: 'der', type } as KeyExportOptions) as Buffer).toString('base64')
const short = inBase64(ofEdwards.privateKey, 'pkcs8')
const long = inBase64(ofRsa.privateKey, 'pkcs8')
const jwk = ofEdwards.privateKey.export({ format: 'jwk' })
/** As long as they can be, and not. */
const [secret, none] = ['s'.repeat(32), 's'.repeat(31)]

const keys: { readonly [what: string]: string } = {
  'PKCS#8, as short as any': short,
  'PKCS#8 with its public key (RFC 8410 10.3)': Buffer.from(
    `3051020101300506032b657004220420${'d4'.repeat(32)}812100${'19'.repeat(32)}`,
    'hex',
  ).toString('base64'),
  'PKCS#8 of two octets of length': inBase64(ofLargeCurve.privateKey, 'pkcs8'),
  'PKCS#8 of three octets of length': long,
  'SEC 1': inBase64(ofCurve.privateKey, 'sec1'),
  'PKCS#1': inBase64(ofRsa.privateKey, 'pkcs1'),
  'for addresses': Buffer.from(long, 'base64').toString('base64url'),
  'for addresses, of no other letters than theirs': Buffer.from(
    `302e020100300506032b657004220420${'fb'.repeat(32)}`,
    'hex',
  ).toString('base64url'),
  'in short lines': long.replaceAll(/.{32}/g, '$&\r\n\t'),
  'behind the end of a line, as JSON has it': JSON.stringify(`It is\n${short}`),
  'of a line of Windows': JSON.stringify(`It is\r${short}`),
  'and behind a tab': JSON.stringify(`It is\t${short}`),
  'in lines, as JSON has them': JSON.stringify(long.replaceAll(/.{32}/g, '$&\n')),
  'a JWK': JSON.stringify(jwk),
  'a JWK of AKP': JSON.stringify({ kty: 'AKP', priv: secret }),
  'a JWK in lines': JSON.stringify(jwk, null, 2).replaceAll(': ', ':\n'),
  'a JWK with space before and behind its colons': `{ "kty" : "EC" , "d" : "${secret}" }`,
  'a JWK in a string': JSON.stringify(`{ "kty"\n:\r\n"EC", "d"\n:\r\n"${secret}" }`),
  'a JWK in a string of one in a string': JSON.stringify(JSON.stringify(JSON.stringify(jwk, null, 2))),
  'of PuTTY': 'PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n',
  'with a label': '-----BEGIN PRIVATE KEY-----\nAAAA',
  'with the longest label': '-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA',
  'with a label of no other letters': '-----BEGIN EC PRIVATE KEY BLOCK-----',
  'with a label behind one of something else': '-----BEGIN CERTIFICATE-----\n-----BEGIN BEGIN RSA PRIVATE KEY-----',
}

const nothing: { readonly [what: string]: string } = {
  'of the public key': inBase64(ofCurve.publicKey, 'spki'),
  'a request': csrFor('a.example.com').replaceAll(/-----.*-----|\n/g, ''),
  'what a request signs': Buffer.from(`306402010030163114301206035504030c0b${'61'.repeat(90)}`, 'hex').toString(
    'base64',
  ),
  'what is shorter than a key': short.slice(0, 55),
  'what is within something longer': `AAAA${short}`,
  'what is within something longer for addresses': `AAA-${short}`,
  'a JWK that is public': JSON.stringify(ofEdwards.publicKey.export({ format: 'jwk' })),
  'a JWK with another d': `{"kty":"EC","d":"${none}"}`,
  'what has a d and is no JWK': `{"d":"${secret}"}`,
  'who speaks of one': 'BEGIN with the PRIVATE KEY, and then BEGIN CERTIFICATE',
}

t.test('a private key is known in whatever form people have it', async (t) => {
  for (const [what, text] of Object.entries(keys)) t.equal(isPrivateKey(text), true, what)
})

t.test('what only looks like one is none', async (t) => {
  for (const [what, text] of Object.entries(nothing)) t.equal(isPrivateKey(text), false, what)
})

t.test('it is known by its first octets, however long it is', async (t) => {
  const known = (head: string): boolean => isPrivateKey(Buffer.from(head.padEnd(120, '7'), 'hex').toString('base64url'))
  const bodies = ['0201003035060a', '02010130300609', '02010104ff', '0201000281']
  for (let length = 0; length < 256; length++) {
    const octet = length.toString(16).padStart(2, '0')
    const short = length < 128 ? [`30${octet}`] : []
    for (const head of [...short, `3081${octet}`, `3082${octet}5a`, `30825a${octet}`]) {
      for (const body of bodies) if (!known(head + body)) t.fail(head + body)
      for (const body of [
        '0201023030060a',
        '0201003030050a',
        '0201003081060a',
        '02010004ff',
        '0201010281',
        '0202000030',
      ])
        if (known(head + body)) t.fail(head + body)
    }
  }
  for (const head of ['3080', '3183', '3083aaaaaa']) for (const body of bodies) t.equal(known(head + body), false)
})

t.test('of no text that a body has room for it takes longer than 50 ms to see that there is none', async (t) => {
  const filledBy = (part: string, start = ''): string =>
    start + part.repeat((batchBodyLimit - start.length) / part.length)
  const slowest = {
    'what begins as base64 of a SEQUENCE, again and again': filledBy(`M${'A'.repeat(23)}\\n`),
    'what begins as a key': filledBy(`MCACAQ${'A'.repeat(18)}\\n`),
    'blanks behind the name of a field': filledBy(' ', '"kty"'),
    'ends of lines, as JSON has them': filledBy('\\n', '"kty":"d"'),
    'beginnings of labels': filledBy(`BEGIN ${'A'.repeat(40)}`),
    'beginnings of labels, and nearly some within them': filledBy(`BEGIN ${'BEGIN'.repeat(8)}`),
  }
  for (const [what, text] of Object.entries(slowest)) {
    const times = [1, 2, 3].map(() => {
      const before = cpu()
      t.equal(isPrivateKey(text), false, what)
      return cpu() - before
    })
    t.ok(Math.min(...times) < 50, `${what}: ${times.map(Math.round)} ms`)
  }
})

t.test('it is told in the place of what is wrong with the body, and of nothing else', async (t) => {
  const told = (problem: Problem, body: unknown = { key: short }) => keyFirst(problem, body)
  for (const code of ['request.malformed', 'san.forbidden'] as const)
    t.match(told(new Problem(code, 'x')), { code: 'csr.key_material' }, code)
  const others = (
    ['auth.missing', 'auth.forbidden', 'idempotency.reused', 'limit.room', 'db.unavailable'] as const
  ).map((code) => new Problem(code, 'x'))
  // Whoever has read the field itself says which.
  for (const problem of [...others, new Problem('csr.key_material', 'The field csr holds one.')])
    t.equal(told(problem), problem, problem.code)
  const malformed = new Problem('request.malformed', 'x')
  for (const body of [undefined, null, {}, 17]) t.equal(keyFirst(malformed, body), malformed)
})
