/** What openssl and ocsptool ask, we read; what we answer, they read and verify; what strangers send is judged. */
import { createHash, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import fc from 'fast-check'
import t from 'tap'

import { isProblem } from '../../src/errors.ts'
import {
  defaultSignatureAlgorithm,
  generationOf,
  type KeyKind,
  type SignatureAlgorithm,
} from '../../src/x509/algorithms.ts'
import { encodeCaTbs } from '../../src/x509/certificate.ts'
import { type CrlReason, crlReasons } from '../../src/x509/crl.ts'
import { openDer, tags } from '../../src/x509/der.ts'
import { type PublicKey, parsePublicKey } from '../../src/x509/keys.ts'
import {
  type CertIdHash,
  type CertStatus,
  encodeBasicResponse,
  encodeOcspResponse,
  encodeResponseData,
  encodeSingleResponse,
  issuerHashes,
  type OcspRequest,
  ocspErrors,
  type SingleResponse,
} from '../../src/x509/ocsp.ts'
import { parseOcspRequest } from '../../src/x509/ocsp-reading.ts'
import { encodePem } from '../../src/x509/pem.ts'
import { encodeSubject, type Subject } from '../../src/x509/subject.ts'
import { compileTemplate, encodeCertificate, encodeTbs } from '../../src/x509/tbs.ts'
import { encodeCertId } from '../helpers/cert-id.ts'
import { cpu } from '../helpers/cpu.ts'
import { parseOcspResponse } from '../helpers/ocsp-response.ts'
import { assertTools, output, type Ran, run } from '../interop/tools.ts'
import { bits, commonName, ecdsaSha256, extension, hex, integer, nil, no, octets, oid, seq, tlv, yes } from './build.ts'

await assertTools('openssl', 'ocsptool')
const folder = await mkdtemp(join(tmpdir(), 'chancery-ocsp-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))

const file = async (name: string, contents: string | Buffer): Promise<string> => {
  await writeFile(join(folder, name), contents)
  return join(folder, name)
}

// The tools judge freshness by the real clock.
const now = new Date(Math.floor(Date.now() / 1000) * 1000)
const after = (hours: number): Date => new Date(now.getTime() + hours * 3_600_000)
const serialOf = (n: number): Buffer => Buffer.from(n.toString(16).padStart(32, '4'), 'hex')
const shown = (serial: Buffer): string => `0x${serial.toString('hex')}`

// Authorities --------------------------------------------------------------------------------------------------------

interface KeyPair {
  readonly algorithm: SignatureAlgorithm
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
  readonly key: PublicKey
  readonly keyBits: Buffer
}

interface Party extends KeyPair {
  /** Name DER. */
  readonly name: Buffer
  readonly certificate: Buffer
  /** PEM. */
  readonly file: string
}

const newKey = (kind: KeyKind): KeyPair => {
  const { type, options } = generationOf(kind)
  const generate = generateKeyPairSync as unknown as (
    type: string,
    options: object,
  ) => { publicKey: KeyObject; privateKey: KeyObject }
  const { publicKey, privateKey } = generate(type, options)
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  const info = openDer(spki, 'internal').read(tags.sequence, 'SubjectPublicKeyInfo')
  info.read(tags.sequence, 'algorithm')
  const key = parsePublicKey(spki)
  const algorithm = defaultSignatureAlgorithm(key.algorithm.id)
  return { algorithm, privateKey, publicKey, key, keyBits: info.bits('subjectPublicKey').octets }
}

const signed = ({ algorithm, privateKey }: KeyPair, tbs: Buffer): Buffer =>
  sign(algorithm.hash, tbs, { key: privateKey, ...algorithm.signOptions })

const newAuthority = async (kind: KeyKind): Promise<Party> => {
  const pair = newKey(kind)
  const subject: Subject = [{ type: 'commonName', value: `Root ${kind}` }]
  const name = encodeSubject(subject)
  const tbs = encodeCaTbs({
    serial: serialOf(0),
    issuer: name,
    subject,
    notBefore: after(-24),
    notAfter: after(24 * 365),
    key: pair.key,
    authorityKeyIdentifier: pair.key.keyIdentifier,
    signature: pair.algorithm,
  })
  const certificate = encodeCertificate(tbs, pair.algorithm, signed(pair, tbs))
  const fingerprint = pair.key.keyIdentifier.toString('hex')
  return { ...pair, name, certificate, file: await file(`${fingerprint}.pem`, encodePem('CERTIFICATE', certificate)) }
}

/** A leaf below, for the purpose that is asked for; extensions that no profile has go behind the template's. */
const newLeaf = async (issuer: Party, n: number, purpose: string, more: Buffer = Buffer.alloc(0)): Promise<Party> => {
  const pair = newKey('ec-p256')
  const subject: Subject = [{ type: 'commonName', value: `Leaf ${n}` }]
  const template = compileTemplate({
    issuer: {
      subject: issuer.name,
      keyIdentifier: issuer.key.keyIdentifier,
      signature: issuer.algorithm,
      publicUrl: 'http://pki.example.com',
      name: 'root',
    },
    keyUsage: ['digitalSignature'],
    extendedKeyUsage: [purpose],
    revocation: ['ocsp'],
  })
  const tbs = encodeTbs(
    { ...template, extensions: Buffer.concat([template.extensions, more]) },
    { serial: serialOf(n), notBefore: after(-1), notAfter: after(48), subject, key: pair.key, names: [], shard: 0 },
  )
  const certificate = encodeCertificate(tbs, issuer.algorithm, signed(issuer, tbs))
  const path = await file(`leaf-${n}.pem`, encodePem('CERTIFICATE', certificate))
  return { ...pair, name: encodeSubject(subject), certificate, file: path }
}

const root = await newAuthority('ec-p256')
const leaf = await newLeaf(root, 1, 'serverAuth')
const responder = await newLeaf(root, 2, 'OCSPSigning')
const idOf = (n: number, algorithm: CertIdHash = 'sha1', issuer: Party = root): Buffer =>
  encodeCertId(algorithm, issuer.name, issuer.keyBits, serialOf(n))

// Requests of others -------------------------------------------------------------------------------------------------

const asked = async (name: string, ...args: readonly string[]): Promise<Buffer> => {
  const path = join(folder, name)
  await output('openssl', ['ocsp', '-issuer', root.file, ...args, '-reqout', path])
  return readFile(path)
}

const hashesOf = issuerHashes(root.name, root.keyBits)

for (const algorithm of ['sha1', 'sha256'] as const)
  t.test(`openssl asks with ${algorithm}, and we write the same CertID`, async (t) => {
    const der = await asked(`${algorithm}.der`, `-${algorithm}`, '-cert', leaf.file, '-no_nonce')
    const { requests, nonce } = parseOcspRequest(der)
    t.equal(nonce, undefined)
    t.same(requests, [
      { certId: { der: idOf(1, algorithm), hash: algorithm, ...hashesOf[algorithm], serial: serialOf(1) } },
    ])
    t.ok(der.includes(requests[0]?.certId.der as Buffer), 'the CertID is the octets of the request')
  })

t.test('the hashes are of the name and of the bits of the key', (t) => {
  for (const algorithm of ['sha1', 'sha256'] as const) {
    t.same(hashesOf[algorithm], {
      nameHash: createHash(algorithm).update(root.name).digest(),
      keyHash: createHash(algorithm).update(root.keyBits).digest(),
    })
  }
  t.equal(root.keyBits.length, 65, 'without unused bits, tag or length (RFC 6960 4.1.1)')
  t.end()
})

t.test('the nonce of openssl is what its own text says', async (t) => {
  const path = join(folder, 'nonce.der')
  const { nonce } = parseOcspRequest(await asked('nonce.der', '-cert', leaf.file, '-nonce'))
  t.ok(nonce !== undefined && nonce.length >= 16)
  const text = await output('openssl', ['ocsp', '-reqin', path, '-req_text', '-noverify'])
  t.ok(text.includes(`04${nonce?.length.toString(16).padStart(2, '0')}${nonce?.toString('hex')}`.toUpperCase()), text)
})

t.test('openssl asks for several, by certificate and by serial, hashed in different ways', async (t) => {
  const serials = ['-sha256', '-serial', shown(serialOf(7)), '-sha1', '-serial', '0x0102', '-sha384', '-serial', '5']
  const der = await asked('several.der', '-cert', leaf.file, ...serials, '-serial', '5')
  const ids = parseOcspRequest(der).requests.map(({ certId }) => certId)
  t.same(
    ids.map((id) => [id.hash, id.serial.toString('hex')]),
    [
      ['sha1', serialOf(1).toString('hex')],
      ['sha256', serialOf(7).toString('hex')],
      ['sha1', '102'.padStart(32, '0')],
      [undefined, '5'.padStart(32, '0')],
      [undefined, '5'.padStart(32, '0')],
    ],
  )
  t.same(ids[1]?.der, idOf(7, 'sha256'))
  t.same(ids[2]?.der, encodeCertId('sha1', root.name, root.keyBits, Buffer.from([1, 2])))
  t.equal(ids[3]?.keyHash.length, 48)
})

t.test('openssl asks for zero, which is read, and for less, which is not', async (t) => {
  const { requests } = parseOcspRequest(await asked('zero.der', '-serial', '0'))
  t.same(requests[0]?.certId.serial, Buffer.alloc(16))
  const negative = await asked('negative.der', '-serial', '-5')
  t.throws(() => parseOcspRequest(negative), { code: 'request.malformed', message: /negative/ })
})

t.test('a signed request is read like one that is not', async (t) => {
  const key = await file('signer.key', leaf.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string)
  const signer = ['-signer', leaf.file, '-signkey', key, '-cert', leaf.file, '-no_nonce']
  const others = ['-sign_other', root.file]
  for (const more of [[], ['-no_certs'], others]) {
    const der = await asked('signed.der', ...signer, ...more)
    t.ok(der.includes(leaf.name), 'requestorName is there')
    t.same(parseOcspRequest(der), parseOcspRequest(await asked('unsigned.der', '-cert', leaf.file, '-no_nonce')))
  }
  t.ok((await asked('signed.der', ...signer, ...others)).includes(root.certificate), 'the certificates were there')
})

t.test('ocsptool asks, and we write the same CertID', async (t) => {
  const path = join(folder, 'ocsptool.der')
  await output('ocsptool', ['-q', '--load-issuer', root.file, '--load-cert', leaf.file, '--outfile', path])
  t.match(parseOcspRequest(await readFile(path)), { requests: [{ certId: { der: idOf(1) } }], nonce: undefined })
})

// Responses to others ------------------------------------------------------------------------------------------------

interface Answer {
  readonly statuses?: readonly CertStatus[]
  readonly certificates?: readonly Buffer[]
  readonly nonce?: Buffer
  readonly hash?: CertIdHash
}

/** The answer for the serials 1, 2, 3, … of this issuer. */
const answered = (by: Party, answer: Answer = {}, issuer: Party = root): Buffer => {
  const { statuses = [{ kind: 'good' }], certificates = [], nonce, hash } = answer
  const tbs = encodeResponseData({
    responderKeyHash: issuerHashes(by.name, by.keyBits).sha1.keyHash,
    producedAt: now,
    responses: statuses.map((status, i) =>
      encodeSingleResponse({ certId: idOf(i + 1, hash, issuer), status, thisUpdate: after(-1), nextUpdate: after(1) }),
    ),
    ...(nonce !== undefined && { nonce }),
  })
  return encodeOcspResponse(encodeBasicResponse(tbs, by.algorithm, signed(by, tbs), certificates))
}

/** How openssl, which asks for the first `count` of them, takes the answer. */
const taken = async (der: Buffer, count: number, ...args: readonly string[]): Promise<Ran> => {
  const serials = Array.from({ length: count }, (_, i) => ['-serial', shown(serialOf(i + 1))]).flat()
  return run('openssl', ['ocsp', '-respin', await file('response.der', der), '-no_nonce', ...args, ...serials])
}
const trusting = (issuer: Party, ...args: readonly string[]): string[] => [
  ...args,
  '-issuer',
  issuer.file,
  '-CAfile',
  issuer.file,
]

for (const kind of ['ec-p256', 'ec-p384', 'ec-p521', 'ed25519', 'rsa-3072', 'ml-dsa-65'] as const)
  t.test(`openssl verifies a response that the issuer signed with ${kind}`, async (t) => {
    const issuer = await newAuthority(kind)
    const der = answered(issuer, {}, issuer)
    const { stdout, stderr } = await taken(der, 1, ...trusting(issuer))
    t.match(stderr, /Response verify OK/)
    t.match(stdout, /: good\n/)
    const response = parseOcspResponse(der)
    if (response.status !== 'successful') return t.fail('not successful')
    const { tbs, signature, signatureAlgorithm } = response.basic
    const { hash, signOptions } = signatureAlgorithm
    t.ok(verify(hash, tbs, { key: issuer.publicKey, ...signOptions }, signature))
    const broken = Buffer.from(der)
    broken[der.length - 3] = (der.at(-3) ?? 0) ^ 1
    t.match(await taken(broken, 1, ...trusting(issuer)), { code: 1, stderr: /Response Verify Failure/ })
  })

const revoked = Object.keys(crlReasons).map((reason) => ({
  kind: 'revoked' as const,
  at: new Date('2026-10-01T12:34:56Z'),
  reason: reason as CrlReason,
}))

t.test('openssl reads good, unknown, and revoked with each reason', async (t) => {
  const statuses: CertStatus[] = [
    { kind: 'good' },
    { kind: 'unknown' },
    { kind: 'revoked', at: new Date('2051-01-01T00:00:00.999Z') },
    ...revoked,
  ]
  for (const hash of ['sha1', 'sha256'] as const) {
    const ran = await taken(answered(root, { statuses, hash }), statuses.length, `-${hash}`, ...trusting(root))
    t.match(ran.stderr, /Response verify OK/)
    const said = ran.stdout.split(/^0x/m).slice(1)
    t.equal(said.length, statuses.length)
    statuses.forEach((status, i) => {
      const text = said[i] ?? ''
      t.match(text, new RegExp(`^${serialOf(i + 1).toString('hex')}: ${status.kind}\n`))
      t.ok(text.includes('This Update: ') && text.includes('Next Update: '))
      if (status.kind !== 'revoked') return
      const reason = status.reason === undefined || status.reason === 'unspecified' ? undefined : status.reason
      t.equal(/Reason: (\w+)/.exec(text)?.[1], reason)
      const at = i === 2 ? 'Jan  1 00:00:00 2051 GMT' : 'Oct  1 12:34:56 2026 GMT'
      t.ok(text.includes(`Revocation Time: ${at}`), text)
    })
  }
})

t.test('openssl looks for its own serial and issuer in the response', async (t) => {
  const der = answered(root)
  t.match((await taken(der, 2, ...trusting(root))).stdout, /: good\n(.*\n)*.*: ERROR: No Status found/)
  t.match((await taken(der, 1, '-sha256', ...trusting(root))).stdout, /ERROR: No Status found/)
})

t.test('openssl verifies a delegated responder, by whichever way it gets to know it', async (t) => {
  const within = answered(responder, { certificates: [responder.certificate] })
  t.match((await taken(within, 1, ...trusting(root))).stderr, /Response verify OK/)
  const without = answered(responder)
  t.match((await taken(without, 1, ...trusting(root))).stderr, /signer certificate not found/)
  t.match((await taken(without, 1, ...trusting(root, '-verify_other', responder.file))).stderr, /Response verify OK/)
  t.match((await taken(without, 1, '-issuer', root.file, '-VAfile', responder.file)).stderr, /Response verify OK/)
  const several = answered(responder, { certificates: [leaf.certificate, responder.certificate, root.certificate] })
  t.match((await taken(several, 1, ...trusting(root))).stderr, /Response verify OK/)
  const stranger = answered(leaf, { certificates: [leaf.certificate] })
  t.match((await taken(stranger, 1, ...trusting(root))).stderr, /missing ocspsigning usage/)
})

t.test('openssl knows the extension that says not to check the responder', async (t) => {
  const shows = (party: Party) => output('openssl', ['x509', '-in', party.file, '-noout', '-text'])
  t.match(await shows(responder), /OCSP No Check: *\n/)
  t.notMatch(await shows(leaf), /No Check/)
})

t.test('openssl finds its nonce again, and misses another', async (t) => {
  const { nonce } = parseOcspRequest(await asked('own-nonce.der', '-serial', shown(serialOf(1)), '-nonce'))
  const takes = async (answer: Answer): Promise<Ran> => {
    const both = ['-reqin', join(folder, 'own-nonce.der'), '-respin', await file('n.der', answered(root, answer))]
    return run('openssl', ['ocsp', ...both, ...trusting(root)])
  }
  const own = await takes({ nonce: nonce as Buffer })
  t.match(own, { code: 0, stderr: /Response verify OK/ })
  t.notMatch(own.stderr, /nonce/i)
  t.match((await takes({ nonce: Buffer.alloc(32) })).stderr, /Nonce Verify error/)
  t.match((await takes({})).stderr, /no nonce in response/)
})

t.test('ocsptool reads and verifies what the issuer and what a delegated responder signed', async (t) => {
  const statuses: CertStatus[] = [{ kind: 'good' }, { kind: 'unknown' }, ...revoked]
  const nonce = Buffer.from('00112233445566778899aabbccddeeff', 'hex')
  const told = async (der: Buffer, ...args: string[]): Promise<Ran> =>
    run('ocsptool', [...args, '--load-response', await file('ocsptool-response.der', der)])
  const own = answered(root, { statuses, nonce })
  const { stdout, code } = await told(own, '-j')
  t.equal(code, 0)
  for (const expected of ['Response Status: Successful', 'Certificate Status: good', 'Certificate Status: unknown'])
    t.ok(stdout.includes(expected), expected)
  t.equal(stdout.match(/Certificate Status: revoked/g)?.length, revoked.length)
  t.equal(stdout.match(/Revocation time: Thu Oct 01 12:34:56 UTC 2026/g)?.length, revoked.length)
  t.ok(stdout.includes(`Nonce: ${nonce.toString('hex')}`), 'the nonce')
  t.match((await told(own, '--verify-response', '--load-signer', root.file)).stdout, /Success/)
  const delegated = answered(responder, { certificates: [responder.certificate] })
  t.match((await told(delegated, '--verify-response', '--load-trust', root.file)).stdout, /Success/)
  const other = await newAuthority('ed25519')
  for (const load of ['--load-signer', '--load-trust'])
    t.match((await told(delegated, '--verify-response', load, other.file)).stdout, /Failure/, load)
})

t.test('ocsptool and openssl ask over HTTP, and are content with the answer and its nonce', async (t) => {
  const requests: OcspRequest[] = []
  const server = createServer(async (request, response) => {
    const pieces: Buffer[] = []
    for await (const piece of request) pieces.push(piece)
    const one = parseOcspRequest(Buffer.concat(pieces))
    requests.push(one)
    const { nonce } = one
    response.setHeader('content-type', 'application/ocsp-response').end(answered(root, nonce && { nonce }))
  })
  t.teardown(() => server.close())
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/ocsp`
  const files = ['--load-issuer', root.file, '--load-cert', leaf.file, '--load-signer', root.file]
  const gnutls = await run('ocsptool', [`--ask=${url}`, '--nonce', ...files])
  t.match(gnutls, { code: 0, stdout: /Success/ })
  t.notMatch(gnutls.stdout + gnutls.stderr, /nonce.*(not|mismatch|differ)/i)
  const openssl = await run('openssl', ['ocsp', '-url', url, ...trusting(root, '-nonce'), '-cert', leaf.file])
  t.match(openssl, { code: 0, stdout: /: good\n/, stderr: /Response verify OK/ })
  t.notMatch(openssl.stderr, /nonce/i)
  t.equal(requests.length, 2)
  for (const { nonce } of requests) t.ok(nonce !== undefined && nonce.length >= 16, `${nonce?.length} octets of nonce`)
})

t.test('openssl and ocsptool call every error by its name', async (t) => {
  const names = {
    malformedRequest: /malformedrequest \(1\)/,
    internalError: /internalerror \(2\)/,
    tryLater: /trylater \(3\)/,
    sigRequired: /sigrequired \(5\)/,
    unauthorized: /unauthorized \(6\)/,
  } as const
  t.same(Object.keys(ocspErrors), Object.keys(names))
  for (const name of Object.keys(names) as (keyof typeof names)[]) {
    const path = await file('error.der', ocspErrors[name])
    t.match(await run('openssl', ['ocsp', '-respin', path]), { code: 1, stdout: names[name] }, name)
    const { stdout } = await run('ocsptool', ['-j', '--load-response', path])
    t.match(stdout.toLowerCase(), `response status: ${name.toLowerCase()}`)
    t.same(parseOcspResponse(ocspErrors[name]), { status: name })
  }
})

// Round trips --------------------------------------------------------------------------------------------------------

const anyOctets = (minLength: number, maxLength: number) =>
  fc.uint8Array({ minLength, maxLength }).map((found) => Buffer.from(found))
const anyHash = fc.constantFrom('sha1' as const, 'sha256' as const)
const anyNonce = fc.option(anyOctets(1, 128), { nil: undefined })
/** Positive and at most 20 octets as an INTEGER. */
const anySerial = anyOctets(1, 20).map((serial) => {
  const positive = Buffer.from(serial)
  positive[0] = ((serial[0] ?? 0) & 0x7f) | 0x01
  return positive
})
const padded = (serial: Buffer): Buffer => Buffer.concat([Buffer.alloc(Math.max(0, 16 - serial.length)), serial])
const second = fc.integer({ min: 0, max: 4_000_000_000 }).map((seconds) => new Date(seconds * 1000))

t.test('whatever is asked in the form of RFC 6960 is read', async () => {
  const entry = fc.record({ hash: anyHash, serial: anySerial, parameters: fc.boolean(), extra: fc.boolean() })
  const extras = fc.record({ requestor: fc.boolean(), signature: fc.boolean(), unknown: fc.boolean() })
  fc.assert(
    fc.property(fc.array(entry, { minLength: 1, maxLength: 16 }), anyNonce, extras, (entries, nonce, extra) => {
      const ids = entries.map(({ hash, serial, parameters }) => {
        const id = encodeCertId(hash, root.name, root.keyBits, serial)
        return parameters ? id : seq(seq(oid(hashOids[hash])), ...parts(id, hash))
      })
      const extensions = [...(extra.unknown ? [passed] : []), ...(nonce === undefined ? [] : [nonceOf(octets(nonce))])]
      const der = ocspRequest({
        ...(extra.requestor && { before: tlv(0xa1, tlv(0xa4, commonName('Somebody'))) }),
        list: ids.map((id, i) => seq(id, ...(entries[i]?.extra ? [tlv(0xa0, seq(passed))] : []))),
        ...(extensions.length > 0 && { extensions }),
        ...(extra.signature && { signature: tlv(0xa0, seq(seq(oid('1.2.3')), bits(Buffer.alloc(3)))) }),
      })
      const read = parseOcspRequest(der)
      return (
        (nonce === undefined ? read.nonce === undefined : read.nonce?.equals(nonce) === true) &&
        read.requests.length === ids.length &&
        read.requests.every(({ certId }, i) => {
          const { hash, serial } = entries[i] as (typeof entries)[number]
          return (
            certId.der.equals(ids[i] as Buffer) &&
            certId.hash === hash &&
            certId.nameHash.equals(hashesOf[hash].nameHash) &&
            certId.keyHash.equals(hashesOf[hash].keyHash) &&
            certId.serial.equals(padded(serial))
          )
        })
      )
    }),
    { seed: 20261125, numRuns: 500 },
  )
})

t.test('whatever is answered is read back', async () => {
  const status: fc.Arbitrary<CertStatus> = fc.oneof(
    fc.constantFrom({ kind: 'good' } as const, { kind: 'unknown' } as const),
    fc
      .record(
        {
          at: second,
          reason: fc.constantFrom(...(Object.keys(crlReasons) as CrlReason[]).filter((one) => one !== 'unspecified')),
        },
        { requiredKeys: ['at'] },
      )
      .map((revoked) => ({ kind: 'revoked', ...revoked }) as CertStatus),
  )
  const single = fc.record({
    hash: anyHash,
    serial: anySerial,
    status,
    thisUpdate: second,
    seconds: fc.integer({ min: 1, max: 9e8 }),
  })
  const certificates = fc.subarray([root.certificate, leaf.certificate, responder.certificate])
  const signature = anyOctets(1, 400)
  fc.assert(
    fc.property(
      fc.record({ singles: fc.array(single, { minLength: 1, maxLength: 16 }), nonce: anyNonce }),
      fc.record({ producedAt: second, certificates, signature, responderKeyHash: anyOctets(20, 20) }),
      ({ singles, nonce }, { producedAt, certificates, signature, responderKeyHash }) => {
        const written = singles.map(({ hash, serial, status, thisUpdate, seconds }) => ({
          certId: encodeCertId(hash, root.name, root.keyBits, serial),
          status,
          thisUpdate,
          nextUpdate: new Date(thisUpdate.getTime() + seconds * 1000),
        }))
        const common = { responderKeyHash, producedAt, ...(nonce !== undefined && { nonce }) }
        const tbs = encodeResponseData({ ...common, responses: written.map(encodeSingleResponse) })
        const basic = encodeBasicResponse(tbs, root.algorithm, signature, certificates)
        const response = parseOcspResponse(encodeOcspResponse(basic))
        if (response.status !== 'successful') return false
        const { responses, ...rest } = response.basic
        const expected = { tbs, ...common, signatureAlgorithm: root.algorithm, signature, certificates }
        return (
          same(rest, expected) &&
          same(
            responses.map(({ certId, ...more }) => ({ certId: certId.der, ...more })),
            written,
          ) &&
          same(
            responses.map(({ certId }) => certId.serial),
            singles.map(({ serial }) => padded(serial)),
          )
        )
      },
    ),
    { seed: 20261125, numRuns: 300 },
  )
})

/** Equal, whatever the order of their members. */
const same = (one: unknown, other: unknown): boolean => sorted(one) === sorted(other)
const sorted = (value: unknown): string =>
  JSON.stringify(value, (_, member) =>
    member !== null && typeof member === 'object' && !Array.isArray(member)
      ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)))
      : member,
  )

t.test('times are cut to seconds and are GeneralizedTime in every year', (t) => {
  const single = encodeSingleResponse({
    certId: idOf(1),
    status: { kind: 'revoked', at: new Date('1999-12-31T23:59:59.999Z'), reason: 'unspecified' },
    thisUpdate: new Date('2026-11-25T00:00:00.001Z'),
    nextUpdate: new Date('2050-01-01T00:00:00.500Z'),
  })
  const time = (text: string): Buffer => tlv(0x18, Buffer.from(text))
  const at = tlv(0xa1, time('19991231235959Z'))
  t.same(single, seq(idOf(1), at, time('20261125000000Z'), tlv(0xa0, time('20500101000000Z'))))
  t.end()
})

t.test('what no response can say is a defect', (t) => {
  const single: SingleResponse = { certId: idOf(1), status: { kind: 'good' }, thisUpdate: now, nextUpdate: after(1) }
  t.throws(() => encodeSingleResponse({ ...single, nextUpdate: now }), RangeError)
  t.throws(() => encodeSingleResponse({ ...single, nextUpdate: new Date(Number.NaN) }), RangeError)
  const responses = [encodeSingleResponse(single)]
  const data = { responderKeyHash: Buffer.alloc(20), producedAt: now, responses }
  t.throws(() => encodeResponseData({ ...data, responses: [] }), RangeError)
  t.throws(() => encodeResponseData({ ...data, responderKeyHash: Buffer.alloc(32) }), RangeError)
  for (const length of [0, 129])
    t.throws(() => encodeResponseData({ ...data, nonce: Buffer.alloc(length) }), RangeError)
  t.doesNotThrow(() => encodeResponseData({ ...data, nonce: Buffer.alloc(128) }))
  t.throws(() => encodeCertId('sha1', root.name, root.keyBits, Buffer.alloc(16)), RangeError)
  t.end()
})

// What strangers send ------------------------------------------------------------------------------------------------

const hashOids = { sha1: '1.3.14.3.2.26', sha256: '2.16.840.1.101.3.4.2.1' } as const
const nonceOid = '1.3.6.1.5.5.7.48.1.2'
const nonceOf = (value: Buffer, critical?: Buffer): Buffer => extension(nonceOid, value, critical)
/** Known to nobody, and its value is not even DER. */
const passed = extension('1.2.3.4', Buffer.from('ffff', 'hex'))

/** What follows the algorithm in a CertID. */
const parts = (id: Buffer, hash: CertIdHash): Buffer[] => {
  const found = parseOcspRequest(ocspRequest({ list: [seq(id)] })).requests[0]?.certId
  if (found?.hash !== hash) throw new Error('another hash')
  const serial = found.der.subarray(found.der.lastIndexOf(found.keyHash) + found.keyHash.length)
  return [octets(found.nameHash), octets(found.keyHash), serial]
}

interface IdParts {
  readonly algorithm?: Buffer
  readonly name?: Buffer
  readonly key?: Buffer
  readonly serial?: Buffer
  readonly more?: Buffer
}

const sha1 = seq(oid(hashOids.sha1), nil)
const nothing: Buffer = Buffer.alloc(0)
const certId = ({ algorithm = sha1, name, key, serial = integer(1), more = nothing }: IdParts = {}): Buffer =>
  seq(algorithm, name ?? octets(Buffer.alloc(20, 1)), key ?? octets(Buffer.alloc(20, 2)), serial, more)

interface RequestParts {
  /** What comes before requestList. */
  readonly before?: Buffer
  readonly list?: readonly Buffer[]
  readonly extensions?: readonly Buffer[]
  readonly signature?: Buffer
}

function ocspRequest({ before = nothing, list = [seq(certId())], extensions, signature = nothing }: RequestParts = {}) {
  return seq(seq(before, seq(...list), extensions === undefined ? nothing : tlv(0xa2, seq(...extensions))), signature)
}

/** Reads it or finds it malformed, within 50 ms of processor time; anything else fails the test. */
const judged = (der: Buffer, maxCertIds?: number): OcspRequest | undefined => {
  const start = cpu()
  try {
    return parseOcspRequest(der, 'request.malformed', maxCertIds)
  } catch (error) {
    if (!isProblem(error, 'request.malformed')) throw error
    return undefined
  } finally {
    const took = cpu() - start
    if (took > 50) t.fail(`took ${took} ms: ${der.toString('hex').slice(0, 200)}`)
  }
}

t.test('the code is the one that the caller names', (t) => {
  t.throws(() => parseOcspRequest(Buffer.alloc(0), 'policy.lint'), { code: 'policy.lint' })
  t.throws(() => parseOcspRequest(ocspRequest({ extensions: [nonceOf(nil)] }), 'policy.lint'), { code: 'policy.lint' })
  t.throws(() => parseOcspResponse(Buffer.alloc(0), 'request.malformed'), { code: 'request.malformed' })
  t.end()
})

t.test('forms in which clients differ are all read', (t) => {
  const twice = parseOcspRequest(ocspRequest({ list: [seq(certId()), seq(certId())] }))
  t.equal(twice.requests.length, 2, 'the same CertID twice')
  const nonce = Buffer.from('abcd', 'hex')
  t.same(parseOcspRequest(ocspRequest({ extensions: [nonceOf(octets(nonce), yes)] })).nonce, nonce, 'critical')
  const below = ocspRequest({ list: [seq(certId(), tlv(0xa0, seq(nonceOf(octets(nonce)))))] })
  t.equal(parseOcspRequest(below).nonce, undefined, 'where Keycloak puts it, it is nobody’s')
  const absent = ocspRequest({ list: [seq(certId({ algorithm: seq(oid(hashOids.sha1)) }))] })
  t.equal(parseOcspRequest(absent).requests[0]?.certId.hash, 'sha1', 'no parameters')
  const said = ocspRequest({ before: tlv(0xa0, integer(0)) })
  t.equal(parseOcspRequest(said).requests.length, 1, 'v1, as Botan says it')
  const other = certId({ algorithm: seq(oid('1.2.3'), seq(integer(1))), name: octets(nothing) })
  t.match(parseOcspRequest(ocspRequest({ list: [seq(other)] })).requests[0]?.certId, { hash: undefined, der: other })
  for (const [text, expected] of [
    ['020100', Buffer.alloc(16)],
    ['02017f', padded(hex('7f'))],
    ['020200ff', padded(hex('ff'))],
    [`0211 00${'ff'.repeat(16)}`, Buffer.alloc(16, 0xff)],
    [`0214 7f${'ff'.repeat(19)}`, Buffer.concat([hex('7f'), Buffer.alloc(19, 0xff)])],
  ] as const)
    t.same(
      parseOcspRequest(ocspRequest({ list: [seq(certId({ serial: hex(text) }))] })).requests[0]?.certId.serial,
      expected,
    )
  t.end()
})

t.test('a nonce has 1 to 128 octets (RFC 9654)', (t) => {
  for (const length of [1, 16, 32, 128]) {
    const nonce = Buffer.alloc(length, 0x5a)
    t.same(parseOcspRequest(ocspRequest({ extensions: [passed, nonceOf(octets(nonce))] })).nonce, nonce, `${length}`)
  }
  for (const length of [0, 129, 2000]) {
    const der = ocspRequest({ extensions: [nonceOf(octets(Buffer.alloc(length)))] })
    t.throws(() => parseOcspRequest(der), { code: 'request.malformed', message: /a nonce has 1 to 128/ }, `${length}`)
  }
  t.end()
})

const idWith = (id: IdParts): Buffer => ocspRequest({ list: [seq(certId(id))] })
const aSignature = [seq(oid('1.2.3')), bits(Buffer.alloc(3))] as const
const malformed: Readonly<Record<string, readonly [der: Buffer, message: RegExp]>> = {
  nothing: [nothing, /ends inside a header/],
  'a CertID in place of the list': [seq(seq(certId())), /reqCert is missing/],
  'no requestList': [seq(seq()), /requestList is missing/],
  'an empty requestList': [ocspRequest({ list: [] }), /requestList is empty/],
  'an empty Request': [ocspRequest({ list: [seq()] }), /reqCert is missing/],
  'version 2': [ocspRequest({ before: tlv(0xa0, integer(1)) }), /version is not v1/],
  'an empty version': [ocspRequest({ before: tlv(0xa0) }), /version is missing/],
  'two versions': [ocspRequest({ before: tlv(0xa0, integer(0), integer(0)) }), /more in version/],
  'a version that is no integer': [ocspRequest({ before: tlv(0xa0, nil) }), /version is missing/],
  'an empty requestorName': [ocspRequest({ before: tlv(0xa1) }), /requestorName/],
  'a requestorName of another kind': [ocspRequest({ before: tlv(0xa1, commonName('X')) }), /not a GeneralName/],
  'two requestorNames': [ocspRequest({ before: tlv(0xa1, tlv(0x82), tlv(0x82)) }), /more in what holds requestorName/],
  'an empty optionalSignature': [ocspRequest({ signature: tlv(0xa0) }), /Signature is missing/],
  'a signature without bits': [ocspRequest({ signature: tlv(0xa0, seq(aSignature[0])) }), /signature is missing/],
  'a signature and more': [ocspRequest({ signature: tlv(0xa0, seq(...aSignature, nil)) }), /more in Signature/],
  'certs that are none': [
    ocspRequest({ signature: tlv(0xa0, seq(...aSignature, tlv(0xa0, seq(nil)))) }),
    /Certificate is missing/,
  ],
  'something after the signature': [ocspRequest({ signature: nil }), /more in OCSPRequest/],
  'seventeen requests': [ocspRequest({ list: Array(17).fill(seq(certId())) }), /more than 16 requests/],
  'no hash': [idWith({ algorithm: seq() }), /algorithm is missing/],
  'a hash with other parameters': [idWith({ algorithm: seq(oid(hashOids.sha1), seq()) }), /more in hashAlgorithm/],
  'a hash with two parameters': [idWith({ algorithm: seq(oid(hashOids.sha1), nil, nil) }), /more in hashAlgorithm/],
  'an unknown hash with two': [idWith({ algorithm: seq(oid('1.2.3'), nil, nil) }), /more in hashAlgorithm/],
  'a name hash that is too short': [idWith({ name: octets(Buffer.alloc(19)) }), /issuerNameHash is not as long/],
  'a key hash of another algorithm': [idWith({ key: octets(Buffer.alloc(32)) }), /issuerKeyHash is not as long/],
  'a key hash of another type': [idWith({ key: bits(Buffer.alloc(19)) }), /issuerKeyHash is missing/],
  'no serial': [idWith({ serial: nothing }), /serialNumber is missing/],
  'an empty serial': [idWith({ serial: tlv(0x02) }), /INTEGER is empty/],
  'a negative serial': [idWith({ serial: hex('0201ff') }), /negative/],
  'a long negative serial': [idWith({ serial: tlv(0x02, Buffer.alloc(16, 0x80)) }), /negative/],
  'a serial of 21 octets': [idWith({ serial: tlv(0x02, Buffer.alloc(21, 1)) }), /too long/],
  'a serial with its sign in a 21st': [
    idWith({ serial: tlv(0x02, Buffer.from([0]), Buffer.alloc(20, 0xff)) }),
    /too long/,
  ],
  'a serial of 3,000 octets': [idWith({ serial: tlv(0x02, Buffer.alloc(3000, 1)) }), /too long/],
  'a serial with a zero before it': [idWith({ serial: hex('02020001') }), /INTEGER is not minimal/],
  'more in a CertID': [idWith({ more: nil }), /more in CertID/],
  'a CertID as SET': [ocspRequest({ list: [seq(tlv(0x31, nil))] }), /reqCert is missing/],
  'extensions under another tag': [ocspRequest({ list: [seq(certId(), tlv(0xa1, seq(passed)))] }), /more in Request/],
  'more in TBSRequest': [seq(seq(seq(seq(certId())), nil)), /more in TBSRequest/],
  'more in an Extension': [ocspRequest({ extensions: [seq(oid('1.2.3'), octets(), nil)] }), /more in Extension/],
  'an Extension without its value': [ocspRequest({ extensions: [seq(oid('1.2.3'))] }), /extnValue is missing/],
  'two Extensions': [
    seq(seq(seq(seq(certId())), tlv(0xa2, seq(passed), seq(passed)))),
    /more in what holds Extensions/,
  ],
  'empty extensions': [ocspRequest({ extensions: [] }), /Extensions is empty/],
  'empty single extensions': [ocspRequest({ list: [seq(certId(), tlv(0xa0, seq()))] }), /Extensions is empty/],
  'an unknown critical extension': [
    ocspRequest({ extensions: [extension('1.2.3.4', nil, yes)] }),
    /1\.2\.3\.4 is critical and unknown/,
  ],
  'an unknown critical single extension': [
    ocspRequest({ list: [seq(certId(), tlv(0xa0, seq(extension('1.2.3.4', nil, yes))))] }),
    /1\.2\.3\.4 is critical and unknown/,
  ],
  'a critical nonce where none belongs': [
    ocspRequest({ list: [seq(certId(), tlv(0xa0, seq(nonceOf(octets(hex('01')), yes))))] }),
    /critical and unknown/,
  ],
  'critical FALSE': [ocspRequest({ extensions: [extension('1.2.3.4', nil, no)] }), /encodes its default/],
  'two nonces': [ocspRequest({ extensions: [nonceOf(octets(hex('01'))), nonceOf(octets(hex('01')))] }), /occurs twice/],
  'two of an unknown one': [ocspRequest({ extensions: [passed, passed] }), /1\.2\.3\.4 occurs twice/],
  'two single ones': [ocspRequest({ list: [seq(certId(), tlv(0xa0, seq(passed, passed)))] }), /occurs twice/],
  'a nonce without its OCTET STRING': [ocspRequest({ extensions: [nonceOf(Buffer.alloc(16, 0x5a))] }), /octet/],
  'a nonce of another type': [ocspRequest({ extensions: [nonceOf(integer(5))] }), /Nonce is missing/],
  'a nonce and more': [
    ocspRequest({ extensions: [nonceOf(Buffer.concat([octets(hex('01')), nil]))] }),
    /after the end/,
  ],
  'octets after it': [Buffer.concat([ocspRequest(), Buffer.from([0])]), /after the end/],
  'it twice': [Buffer.concat([ocspRequest(), ocspRequest()]), /after the end/],
  'indefinite length': [Buffer.concat([hex('3080'), ocspRequest().subarray(2), hex('0000')]), /indefinite length/],
  'indefinite length within': [seq(seq(Buffer.concat([hex('3080'), seq(certId()), hex('0000')]))), /indefinite length/],
  'a length in more octets than it takes': [Buffer.concat([hex('3081'), ocspRequest().subarray(1)]), /not minimal/],
  'a response': [answered(root), /./],
}

for (const [name, [der, message]] of Object.entries(malformed))
  t.test(`malformed: ${name}`, async (t) => {
    t.throws(() => parseOcspRequest(der), { code: 'request.malformed', message })
    t.equal(judged(der), undefined, 'and soon')
  })

t.test('the number of CertIDs is bounded as the caller says', (t) => {
  const many = (count: number): Buffer => ocspRequest({ list: Array(count).fill(seq(certId())) })
  t.equal(parseOcspRequest(many(16)).requests.length, 16)
  t.equal(parseOcspRequest(many(1), 'request.malformed', 1).requests.length, 1)
  t.throws(() => parseOcspRequest(many(2), 'request.malformed', 1), { message: /more than 1 requests/ })
  const full = many(70)
  t.ok(full.length > 4096)
  t.equal(judged(full), undefined)
  t.equal(judged(full, 70)?.requests.length, 70)
  t.end()
})

t.test('4 KiB of one thing after another, and of one thing in another, end soon', (t) => {
  let deep: Buffer = nil
  while (deep.length < 4080) deep = seq(deep)
  const cases = [
    deep,
    ocspRequest({ before: tlv(0xa1, tlv(0xa4, deep)) }),
    ocspRequest({ extensions: [nonceOf(deep)] }),
    Buffer.alloc(4096, 0x30),
    Buffer.alloc(4096, 0x80),
    seq(...Array<Buffer>(2000).fill(nil)),
    ocspRequest({ list: Array<Buffer>(2000).fill(seq()) }),
    ocspRequest({ extensions: Array<Buffer>(500).fill(seq(oid('1.2.3'), octets())) }),
  ]
  for (const der of cases) t.equal(judged(der), undefined, der.subarray(0, 8).toString('hex'))
  const distinct = Array.from({ length: 400 }, (_, i) => seq(oid(`1.2.${i}`), octets()))
  t.equal(judged(ocspRequest({ extensions: distinct }))?.requests.length, 1, 'many extensions that nobody knows')
  t.end()
})

t.test('a request that is cut, or changed in any octet in any way, is another request or none', (t) => {
  const der = ocspRequest({ extensions: [nonceOf(octets(Buffer.alloc(16, 0x5a)))] })
  const read = sorted(parseOcspRequest(der))
  let others = 0
  for (let i = 0; i < der.length; i++) {
    if (judged(der.subarray(0, i)) !== undefined) t.fail(`read though cut at ${i}`)
    for (let change = 1; change < 256; change++) {
      const changed = Buffer.from(der)
      changed[i] = (der[i] ?? 0) ^ change
      const other = judged(changed)
      if (other !== undefined) others++
      if (sorted(other) === read) t.fail(`octet ${i} may be ${changed[i]} as well`)
    }
  }
  t.ok(others > 40 * 255, 'hashes and the serial make other requests')
  t.end()
})

t.test('a request with everything in it is cut and changed without harm', async (t) => {
  const key = await file('again.key', leaf.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string)
  const der = await asked('everything.der', '-signer', leaf.file, '-signkey', key, '-cert', leaf.file, '-nonce')
  t.ok(judged(der))
  for (let i = 0; i < der.length; i++) {
    if (judged(der.subarray(0, i)) !== undefined) t.fail(`read though cut at ${i}`)
    for (let bit = 1; bit < 256; bit <<= 1) {
      const changed = Buffer.from(der)
      changed[i] = (der[i] ?? 0) ^ bit
      judged(changed)
    }
  }
})

t.test('no octets at all throw anything but a problem', async () => {
  const piece = fc.oneof(
    anyOctets(0, 40),
    fc.constantFrom(sha1, certId(), seq(certId()), passed, nonceOf(octets(hex('5a'))), nil, hex('3080'), integer(1)),
  )
  const { tree } = fc.letrec<{ tree: Buffer; node: Buffer }>((tie) => ({
    tree: fc.oneof({ depthSize: 'medium' }, piece, tie('node')),
    node: fc
      .tuple(fc.constantFrom(0x30, 0xa0, 0xa1, 0xa2, 0x31, 0x04), fc.array(tie('tree'), { maxLength: 4 }))
      .map(([tag, members]) => tlv(tag, ...members)),
  }))
  fc.assert(
    fc.property(
      fc.oneof(
        tree,
        tree.map((one) => seq(seq(one))),
        tree.map((one) => ocspRequest({ list: [one] })),
      ),
      (der) => {
        const read = judged(der)
        return (
          read === undefined ||
          (read.requests.length >= 1 && read.requests.every(({ certId }) => der.includes(certId.der)))
        )
      },
    ),
    { seed: 20261125, numRuns: 5000 },
  )
})

t.test('a response that is cut, longer or changed in any octet is another response or none', (t) => {
  const statuses: CertStatus[] = [
    { kind: 'good' },
    { kind: 'revoked', at: now, reason: 'superseded' },
    { kind: 'unknown' },
  ]
  const der = answered(root, { statuses, nonce: Buffer.alloc(16) })
  const before = sorted(parseOcspResponse(der))
  for (let i = 0; i < der.length; i++) {
    if (reread(der.subarray(0, i)) !== undefined) t.fail(`read though cut at ${i}`)
    for (let bit = 1; bit < 256; bit <<= 1) {
      const other = Buffer.from(der)
      other[i] = (der[i] ?? 0) ^ bit
      if (reread(other) === before) t.fail(`octet ${i} may be ${other[i]} as well`)
    }
  }
  t.equal(reread(Buffer.concat([der, Buffer.from([0])])), undefined)
  t.equal(reread(der), before)
  t.end()
})

/** What it says, or undefined where it is refused. */
const reread = (der: Buffer): string | undefined => {
  try {
    return sorted(parseOcspResponse(der))
  } catch (error) {
    if (!isProblem(error, 'policy.lint')) throw error
    return undefined
  }
}

interface ReplyParts {
  readonly status?: Buffer
  readonly type?: Buffer
  readonly responder?: Buffer
  readonly list?: readonly Buffer[]
  readonly algorithm?: Buffer
  /** What follows where nothing should: by what it is in. */
  readonly after?: Readonly<Partial<Record<'response' | 'explicit' | 'bytes' | 'octets' | 'basic' | 'data', Buffer>>>
}

const at = tlv(0x18, Buffer.from('20261125000000Z'))
const enumerated = (value: number): Buffer => tlv(0x0a, Buffer.from([value]))
const singleOf = (status: Buffer, next = tlv(0xa0, at), more = nothing): Buffer => seq(certId(), status, at, next, more)
const revokedOf = (...more: readonly Buffer[]): Buffer => singleOf(tlv(0xa1, at, ...more))

const reply = ({ after = {}, ...parts }: ReplyParts = {}): Buffer => {
  const { status = enumerated(0), type = oid('1.3.6.1.5.5.7.48.1.1'), algorithm = ecdsaSha256 } = parts
  const { responder = tlv(0xa2, octets(Buffer.alloc(20))), list = [singleOf(tlv(0x80))] } = parts
  const data = seq(responder, at, seq(...list), after.data ?? nothing)
  const basic = seq(data, algorithm, bits(Buffer.alloc(64)), after.basic ?? nothing)
  const bytes = seq(type, octets(basic, after.octets ?? nothing), after.bytes ?? nothing)
  return seq(status, tlv(0xa0, bytes, after.explicit ?? nothing), after.response ?? nothing)
}

const notOurs: Readonly<Record<string, readonly [der: Buffer, message: RegExp]>> = {
  'the status 4': [seq(enumerated(4)), /neither successful/],
  'successful, and nothing else': [seq(enumerated(0)), /responseBytes is missing/],
  'an error with a response': [reply({ status: enumerated(1) }), /neither successful/],
  'a response that is not basic': [reply({ type: oid('1.2.3') }), /not basic/],
  'more in OCSPResponse': [reply({ after: { response: nil } }), /more in OCSPResponse/],
  'two ResponseBytes': [reply({ after: { explicit: seq() } }), /more in what holds ResponseBytes/],
  'more in ResponseBytes': [reply({ after: { bytes: nil } }), /more in ResponseBytes/],
  'more in the OCTET STRING': [reply({ after: { octets: nil } }), /after the end/],
  'more in BasicOCSPResponse': [reply({ after: { basic: nil } }), /more in BasicOCSPResponse/],
  'more in ResponseData': [reply({ after: { data: nil } }), /more in ResponseData/],
  'an unknown signature algorithm': [reply({ algorithm: seq(oid('1.2.3')) }), /signature algorithm is unknown/],
  'a responder by its name': [reply({ responder: tlv(0xa1, commonName('Root')) }), /byKey is missing/],
  'a responder hashed with SHA-256': [reply({ responder: tlv(0xa2, octets(Buffer.alloc(32))) }), /not SHA-1/],
  'no responses': [reply({ list: [] }), /responses is empty/],
  'an unknown status': [reply({ list: [singleOf(tlv(0x83))] }), /status is unknown/],
  'a good that is not empty': [reply({ list: [singleOf(tlv(0x80, nil))] }), /status is unknown/],
  'no nextUpdate': [reply({ list: [singleOf(tlv(0x80), nothing)] }), /nextUpdate is missing/],
  'two in nextUpdate': [reply({ list: [singleOf(tlv(0x80), tlv(0xa0, at, at))] }), /more in nextUpdate/],
  singleExtensions: [reply({ list: [singleOf(tlv(0x80), tlv(0xa0, at), tlv(0xa1, seq(passed)))] }), /more in Single/],
  'an unknown reason': [reply({ list: [revokedOf(tlv(0xa0, enumerated(7)))] }), /the reason is unknown/],
  'unspecified, and said': [reply({ list: [revokedOf(tlv(0xa0, enumerated(0)))] }), /the reason is unknown/],
  'two reasons': [reply({ list: [revokedOf(tlv(0xa0, enumerated(4)), nil)] }), /more in RevokedInfo/],
  'a nonce that is too long': [
    reply({ after: { data: tlv(0xa1, seq(nonceOf(octets(Buffer.alloc(129))))) } }),
    /a nonce has 1 to 128/,
  ],
}

t.test('a response in a form that is not ours is refused', (t) => {
  t.match(parseOcspResponse(reply()), { basic: { responses: [{ status: { kind: 'good' } }] } }, 'this form is ours')
  const superseded = parseOcspResponse(reply({ list: [revokedOf(tlv(0xa0, enumerated(4)))] }))
  t.match(superseded, { basic: { responses: [{ status: { reason: 'superseded' } }] } })
  for (const [name, [der, message]] of Object.entries(notOurs))
    t.throws(() => parseOcspResponse(der), { code: 'policy.lint', message }, name)
  t.end()
})

t.test('writing and reading take microseconds', (t) => {
  const count = 20_000
  const statuses: CertStatus[] = [{ kind: 'good' }, { kind: 'revoked', at: now, reason: 'superseded' }]
  const id = idOf(1)
  const { keyHash } = hashesOf.sha1
  const signature = Buffer.alloc(71)
  const write = (i: number): Buffer => {
    const status = statuses[i % 2] as CertStatus
    const responses = [encodeSingleResponse({ certId: id, status, thisUpdate: now, nextUpdate: after(1) })]
    const tbs = encodeResponseData({ responderKeyHash: keyHash, producedAt: now, responses, nonce: keyHash })
    return encodeOcspResponse(encodeBasicResponse(tbs, root.algorithm, signature, [responder.certificate]))
  }
  const der = ocspRequest({ extensions: [nonceOf(octets(keyHash))] })
  const take = (act: (i: number) => unknown): number => {
    for (let i = 0; i < count; i++) act(i)
    const start = cpu()
    for (let i = 0; i < count; i++) act(i)
    return ((cpu() - start) * 1000) / count
  }
  const [writing, reading] = [take(write), take(() => parseOcspRequest(der))]
  t.comment(`a response is written in ${writing.toFixed(1)} µs, a request read in ${reading.toFixed(1)} µs`)
  t.ok(writing < 100)
  t.ok(reading < 100)
  t.end()
})
