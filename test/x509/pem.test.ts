import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'

import { isProblem } from '../../src/errors.ts'
import {
  bundleFault,
  decodeBase64,
  encodePem,
  type PemLabel,
  parsePem,
  parsePemCertificates,
  parseRawBody,
} from '../../src/x509/pem.ts'
import { cpu } from '../helpers/cpu.ts'

const run = promisify(execFile)

t.test('what is encoded is parsed back, whatever its length', async (t) => {
  for (const length of [1, 2, 3, 47, 48, 49, 96, 1000]) {
    const octets = randomBytes(length)
    t.ok(parsePem(encodePem('CERTIFICATE', octets), 'CERTIFICATE').equals(octets))
    t.ok(parsePem(Buffer.from(encodePem('CERTIFICATE REQUEST', octets)), 'CERTIFICATE REQUEST').equals(octets))
  }
})

t.test('lines are 64 characters long and the text ends in a newline', async (t) => {
  const lines = encodePem('CERTIFICATE', Buffer.alloc(100)).split('\n')
  t.same(
    lines.map((line) => line.length),
    [27, 64, 64, 8, 25, 0],
  )
})

t.test('what is no text is told so', async (t) => {
  const der = Buffer.from('308201f0300a', 'hex')
  for (const input of [der, der.toString('latin1'), der.toString('utf8')])
    t.throws(() => parsePem(input, 'CERTIFICATE REQUEST'), {
      code: 'csr.pem',
      detail: 'it is binary, as DER is, and PEM is wanted',
    })
  t.throws(() => parsePem('not\ta block\r\n', 'CERTIFICATE'), {
    code: 'csr.pem',
    detail: /^the text does not begin with a block$/,
  })
})

t.test('a bundle in the place of certificates is told with the command that makes PEM of it', async (t) => {
  const folder = t.testdir()
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', join(folder, 'key.pem')]
  const openssl = async (...args: readonly string[]) => (await run('openssl', [...args], { encoding: 'buffer' })).stdout
  await openssl('req', '-x509', ...key, '-subj', '/CN=A root', '-out', join(folder, 'root.pem'))
  const pem = await readFile(join(folder, 'root.pem'))
  for (const [form, label] of [
    ['PEM', 'PKCS7'],
    ['PEM', 'PKCS #7 SIGNED DATA'],
    ['PEM', 'CMS'],
    ['PEM', 'CERTIFICATE'],
    ['DER', ''],
  ] as const) {
    const file = join(folder, `chain.${form}`)
    const bundle = await openssl('crl2pkcs7', '-nocrl', '-certfile', join(folder, 'root.pem'), '-outform', form)
    await writeFile(file, form === 'DER' ? bundle : bundle.toString().replaceAll('PKCS7', label))
    for (const encoding of ['latin1', 'utf8'] as const) {
      const text = await readFile(file, encoding)
      const told = bundleFault(text) ?? ''
      t.throws(
        () => parsePemCertificates(text, 3),
        { code: 'csr.pem', detail: told },
        `${form} ${label} as ${encoding}`,
      )
      const command = /^it is PKCS#7, and PEM .* wanted: (.*) makes it/.exec(told)?.[1] ?? ''
      const made = await run('sh', ['-c', command.replace('FILE', form === 'DER' ? `${file} -inform DER` : file)])
      t.same(parsePemCertificates(made.stdout, 3), parsePemCertificates(pem.toString(), 3), 'which it does')
      t.throws(
        () => parsePem(text, 'CERTIFICATE REQUEST'),
        { code: 'csr.pem', detail: /^(?!it is PKCS)/ },
        'no request is in one',
      )
    }
  }
})

t.test('a block whose lines were run together on their way is told so', async (t) => {
  const block = encodePem('CERTIFICATE REQUEST', randomBytes(100))
  for (const input of [block.replaceAll('\n', ''), block.replaceAll('\n', '\r')])
    t.throws(() => parsePem(input, 'CERTIFICATE REQUEST'), {
      code: 'csr.pem',
      detail: /^its line ends are gone .*--data-binary/,
    })
})

t.test('blank lines around the block are accepted', async (t) => {
  t.ok(parsePem(`\n \r\n${encodePem('CERTIFICATE', Buffer.from([1]))}\n\t\n`, 'CERTIFICATE').equals(Buffer.from([1])))
})

t.test('the old label stands for requests only', async (t) => {
  const old = encodePem('CERTIFICATE', Buffer.from([1])).replaceAll('CERTIFICATE', 'NEW CERTIFICATE')
  t.throws(() => parsePem(old, 'CERTIFICATE'), { code: 'csr.pem' })
})

t.test('certificates follow each other with nothing between them but blank lines, up to a bound', async (t) => {
  const of = (n: number, label: PemLabel = 'CERTIFICATE'): string => encodePem(label, Buffer.from([n]))
  const read = (text: string): readonly number[] => parsePemCertificates(text, 3).map((der) => der[0] as number)
  t.same(read(of(1)), [1])
  t.same(read(`\n${of(1)}\n \r\n${of(2).replaceAll('\n', '\r\n')}${of(3).trimEnd()}`), [1, 2, 3])
  for (const [what, text, told] of [
    ['none', ' \n\t\r\n', /the text is empty/],
    ['one too many', of(1) + of(2) + of(3) + of(4), /there are more than 3 blocks/],
    ['text before', `who\n${of(1)}`, /does not begin with a block: take out what stands before it$/],
    ['a boundary that begins otherwise', of(1).replace('-----BEGIN', '+++++BEGIN'), /does not begin with a block/],
    ['a boundary that ends otherwise', of(1).replace('TE-----', 'TE+++++'), /does not begin with a block/],
    ['text between', `${of(1)}who\n${of(2)}`, /does not begin with a block: take out what stands before it$/],
    ['text behind', `${of(1)}who`, /^there is something after the last block$/],
    ['something else', of(1) + of(2, 'X509 CRL'), /not labelled CERTIFICATE/],
    ['one in another', of(1).replace('\n', `\n${of(2)}`), /does not end with the label/],
    ['a block without its end', of(1) + of(2).slice(0, 32), /the block does not end/],
    ['none in a block', `${of(1)}-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n`, /the block is empty/],
  ] as const)
    t.throws(() => read(text), { code: 'csr.pem', detail: told }, what)
  t.throws(() => read(`${of(1)}-----BEGIN EC PRIVATE KEY-----\n`), { code: 'csr.key_material' })
})

t.test('no part of the text goes into a problem', async (t) => {
  for (const text of [
    '-----BEGIN SECRET-----\nc2VjcmV0\n-----END SECRET-----\n',
    'secret',
    '-----BEGIN CERTIFICATE-----\nsecret!\n-----END CERTIFICATE-----\n',
    '-----BEGIN PRIVATE KEY-----\nsecret\n',
  ]) {
    try {
      parsePem(text, 'CERTIFICATE')
      t.fail('it was accepted')
    } catch (error) {
      t.ok(isProblem(error))
      t.notMatch(JSON.stringify(error) + String(error), /secret|c2VjcmV0/i)
    }
  }
})

t.test('base64 has one spelling', async (t) => {
  t.ok(decodeBase64('AAEC').equals(Buffer.from([0, 1, 2])))
  t.ok(decodeBase64('').equals(Buffer.alloc(0)))
  for (const text of ['AAE', 'AAF=', 'AB==', 'A===', 'AA=A', 'AA==AA==', 'AAEC\n', ' AAEC', 'AA-_', 'AAE\u00e9']) {
    t.throws(() => decodeBase64(text), { code: 'csr.pem' }, JSON.stringify(text))
  }
})

t.test('a raw body is DER or strict base64 of it', async (t) => {
  const der = Buffer.concat([Buffer.from([0x30, 0x81, 0xc8]), randomBytes(200)])
  const base64 = der.toString('base64')
  t.ok(parseRawBody(der).equals(der))
  t.ok(parseRawBody(der.toString('latin1')).equals(der))
  t.ok(parseRawBody(base64).equals(der))
  t.ok(parseRawBody(Buffer.from(base64.replaceAll(/.{64}/g, '$&\r\n'))).equals(der))
  for (const body of ['', '\n', 'hello', ` ${base64}`, encodePem('CERTIFICATE REQUEST', der), Buffer.from([0])]) {
    t.throws(() => parseRawBody(body), { code: 'csr.pem' })
  }
  t.throws(() => parseRawBody(encodePem('CERTIFICATE REQUEST', der)), { message: /PEM, whose Content-Type is/ })
  t.throws(() => parseRawBody('-----BEGIN PRIVATE KEY-----\nAAAA\n'), { code: 'csr.key_material' })
})

t.test('a long text takes time in proportion', async (t) => {
  const inputs = [
    '-----BEGIN CERTIFICATE-----\n'.repeat(100_000),
    `-----BEGIN CERTIFICATE-----\n${' \n'.repeat(1_000_000)}`,
    '-'.repeat(3_000_000),
    `${' '.repeat(3_000_000)}x`,
  ]
  for (const input of inputs) {
    const start = cpu()
    t.throws(() => parsePem(input, 'CERTIFICATE'), { code: 'csr.pem' })
    t.ok(cpu() - start < 2_000)
  }
})
