/**
 * Every octet of a certificate that came from the request was allowed by a named check. Issued certificates of generated
 * requests are taken apart by a reader that is not ours; what is left after serial, validity, issuer and the octets of
 * the profile are the subject, the names and the key. Each value of these is one that a passed check of the dry run
 * names; and a value outside of the rule makes exactly that check fail.
 */
import { createHash, X509Certificate } from 'node:crypto'

import fc from 'fast-check'
import t from 'tap'

import type { CheckResult } from '../../src/policy/decide.ts'
import { showCertificate } from '../../src/x509/library.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { dns, ip, mail, pem, rdn, request, type Signer, san, seq, uri, utf8 } from '../x509/build.ts'
import { nodeSigner } from '../x509/keys.ts'

t.setTimeout(300_000)
const service = await openTestService(t, { CHANCERY_REFUSALS_PER_MINUTE: '100000' })
const document = {
  name: 'provenance',
  authority: 'default',
  validity: { default: '1h', max: '24h' },
  keys: [{ ec: ['P-256', 'P-384'] }],
  subject: {
    commonName: { from: 'csr', match: 'node-*', required: false },
    organization: { fixed: ['Fixed Ltd'] },
    locality: { from: 'csr', match: 'Hall *', required: false },
    others: 'drop',
  },
  names: {
    dns: { allow: ['*.in.test', '*.also.in.test'], deny: ['denied.in.test'] },
    ip: { allow: ['10.0.0.0/8'] },
    email: { allow: ['*@in.test'] },
  },
  keyUsage: ['digitalSignature'],
  extendedKeyUsage: ['serverAuth'],
  revocation: ['crl', 'ocsp'],
}
for (const [method, path, body] of [
  ['PUT', '/v1/profiles/provenance', document],
  ['POST', '/v1/grants', { principal: 'admin', role: 'requester', profiles: ['provenance'] }],
] as const) {
  const headers: Record<string, string> = method === 'PUT' ? { 'if-none-match': '*' } : {}
  const made = await service.request(method, path, { headers, body })
  if (made.status !== 201) throw new Error(made.text)
}

interface Asked {
  readonly commonName?: string
  readonly locality?: string
  readonly organizationalUnit?: string
  readonly names: readonly string[]
  readonly key: 'P-256' | 'P-384' | 'P-521'
}

const word = fc.string({ unit: fc.constantFrom(...'abcxyz0129'), minLength: 1, maxLength: 12 })
const address = fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255)).map((rest) => `ip:10.${rest.join('.')}`)
/** Requests that the profile allows, with attributes that it drops. */
const asks: fc.Arbitrary<Asked> = fc.record(
  {
    commonName: word.map((text) => `node-${text}`),
    locality: word.map((text) => `Hall ${text}`),
    organizationalUnit: word,
    names: fc.uniqueArray(
      fc.oneof(
        word.map((text) => `dns:${text}.in.test`),
        word.map((text) => `dns:${text}.also.in.test`),
        address,
        word.map((text) => `email:${text}@in.test`),
      ),
      { maxLength: 8 },
    ),
    key: fc.constantFrom('P-256' as const, 'P-384' as const),
  },
  { requiredKeys: ['names', 'key'] },
)

const attributes = { commonName: '2.5.4.3', locality: '2.5.4.7', organizationalUnit: '2.5.4.11' } as const
const makers: Readonly<Record<string, (value: string) => Buffer>> = {
  dns,
  email: mail,
  uri,
  ip: (value) => ip(Buffer.from(value.split('.').map(Number)).toString('hex')),
}
const signerOf = (key: Asked['key']): Signer => nodeSigner('ec', { namedCurve: key })

const csrOf = ({ names, key, ...subject }: Asked): string => {
  const rdns = Object.entries(attributes).flatMap(([type, oid]) => {
    const value = subject[type as keyof typeof attributes]
    return value === undefined ? [] : [rdn(oid, utf8(value))]
  })
  const list = names.map(
    (name) => makers[name.slice(0, name.indexOf(':'))]?.(name.slice(name.indexOf(':') + 1)) ?? seq(),
  )
  const wanted = list.length > 0 ? { extensions: [san(...list)] } : { attributes: Buffer.from('a000', 'hex') }
  return pem(request({ signer: signerOf(key), subject: seq(...rdns), ...wanted }))
}

const explain = async (
  asked: Asked,
): Promise<{ readonly allowed: boolean; readonly checks: readonly CheckResult[] }> => {
  const body = { csr: csrOf(asked), profile: 'provenance' }
  const { status, json, text } = await service.request('POST', '/v1/certificates?dryRun=true', { body })
  if (status !== 200) throw new Error(text)
  return json
}

const failed = ({ checks }: { readonly checks: readonly CheckResult[] }): readonly string[] => [
  ...new Set(checks.filter(({ outcome }) => outcome === 'failed').map(({ check }) => check)),
]

/** The check that must have passed a value, and what it must have said it passed. */
const allowedBy = (asked: Asked, spki: Buffer): readonly (readonly [check: string, value: string])[] => [
  ['key.type', `ec-${asked.key.toLowerCase().replace('-', '')}`],
  ['key.issuer', createHash('sha256').update(spki).digest('hex')],
  ['subject.organization', 'Fixed Ltd'],
  ...(asked.commonName === undefined ? [] : [['subject.commonName', asked.commonName] as const]),
  ...(asked.locality === undefined ? [] : [['subject.locality', asked.locality] as const]),
  ...asked.names.flatMap((name) => {
    const [kind = '', value = ''] = [name.slice(0, name.indexOf(':')), name.slice(name.indexOf(':') + 1)]
    return [[`names.${kind}.allow`, value] as const, ...(kind === 'dns' ? [['names.dns.deny', value] as const] : [])]
  }),
]

const titles: Readonly<Record<string, string>> = { CN: 'commonName', O: 'organization', L: 'locality' }

slowTest('each value that came from the request is one that a named check has passed', async (t) => {
  const frames = new Set<string>()
  for (const asked of fc.sample(asks, { numRuns: 150, seed: 20261125 })) {
    const { allowed, checks } = await explain(asked)
    t.ok(allowed, JSON.stringify(asked))
    const answer = await service.request('POST', '/v1/certificates', {
      body: { csr: csrOf(asked), profile: 'provenance' },
    })
    t.equal(answer.status, 201, answer.text)
    const der = new X509Certificate(answer.json.certificate).raw
    const shown = showCertificate(der)
    const passed = checks.filter(({ outcome }) => outcome === 'passed').map(({ check, value }) => `${check} ${value}`)
    const expected = allowedBy(asked, shown.spki)
    t.same(
      expected.map(([check, value]) => `${check} ${value}`).filter((line) => !passed.includes(line)),
      [],
      'each has passed its check',
    )
    const found = [
      ...shown.subject
        .split(', ')
        .filter(Boolean)
        .map((text) => `${titles[text.slice(0, text.indexOf('='))]} ${text.slice(text.indexOf('=') + 1)}`),
      ...shown.names.map(({ type, value }) => `${type} ${value}`),
    ].sort()
    const granted = expected
      .filter(([check]) => !check.startsWith('key.') && check !== 'names.dns.deny')
      .map(([check, value]) => `${/^(?:subject|names)\.(\w+)/.exec(check)?.[1]} ${value}`)
      .sort()
    t.same(found, granted, 'and there is nothing else in the certificate')
    frames.add(frameOf(der))
  }
  t.equal(frames.size, 1, 'what is left is the same in all: none of it came from a request')
})

/** What is left of a certificate without its serial, its times, and what the request may choose. */
const frameOf = (der: Buffer): string => {
  const [tbs = der] = elements(der)
  const [version = der, , algorithm = der, issuer = der, , , , extensions = der] = elements(tbs)
  const [list = der] = elements(extensions)
  const kept = elements(list).map((one) => {
    const type = (elements(one)[0] ?? one).toString('hex')
    if (type === subjectAltName) return 'names'
    if (type === subjectKeyIdentifier) return 'the identifier of the key'
    // Lengths change with the digits of the shard, so they go too.
    if (type === crlDistributionPoints)
      return one
        .toString('latin1')
        .replace(/^.*(?=http)/s, '')
        .replace(/\d+\.crl$/, 'N.crl')
    return one.toString('hex')
  })
  const names = kept.filter((one) => one !== 'names')
  if (kept.length - names.length > 1) throw new Error('the names stand twice')
  return [version, algorithm, issuer]
    .map((part) => part.toString('hex'))
    .concat(names)
    .join()
}

/** The elements within one, each with its tag and length. */
const elements = (der: Buffer): readonly Buffer[] => {
  const found: Buffer[] = []
  for (let at = headerOf(der); at < der.length; ) {
    const one = der.subarray(at)
    const end = headerOf(one) + lengthOf(one)
    found.push(one.subarray(0, end))
    at += end
  }
  return found
}
const headerOf = (der: Buffer): number => ((der[1] ?? 0) < 0x80 ? 2 : 2 + ((der[1] ?? 0) & 0x7f))
const lengthOf = (der: Buffer): number => ((der[1] ?? 0) < 0x80 ? (der[1] ?? 0) : der.readUIntBE(2, headerOf(der) - 2))

const subjectKeyIdentifier = '0603551d0e'
const subjectAltName = '0603551d11'
const crlDistributionPoints = '0603551d1f'

t.test('a value outside of its rule fails exactly the check of that rule', async (t) => {
  const base: Asked = {
    commonName: 'node-1',
    locality: 'Hall 1',
    names: ['dns:a.in.test', 'ip:10.0.0.1', 'email:a@in.test'],
    key: 'P-256',
  }
  t.same(failed(await explain(base)), [])
  const cases: readonly (readonly [what: string, asked: Asked, check: string])[] = [
    ['another common name', { ...base, commonName: 'edge-1' }, 'subject.commonName'],
    ['a common name of more', { ...base, commonName: 'xnode-1' }, 'subject.commonName'],
    ['another locality', { ...base, locality: 'Room 1' }, 'subject.locality'],
    ['a name of another domain', { ...base, names: ['dns:a.out.test', ...base.names] }, 'names.dns.allow'],
    ['a name too deep', { ...base, names: ['dns:x.y.in.test', ...base.names] }, 'names.dns.allow'],
    ['the apex', { ...base, names: ['dns:in.test', ...base.names] }, 'names.dns.allow'],
    ['a denied name', { ...base, names: ['dns:denied.in.test', ...base.names] }, 'names.dns.deny'],
    ['an address outside', { ...base, names: ['ip:11.0.0.1', ...base.names] }, 'names.ip.allow'],
    ['another mailbox', { ...base, names: ['email:a@out.test', ...base.names] }, 'names.email.allow'],
    ['a kind that has no rule', { ...base, names: ['uri:spiffe://in.test/a', ...base.names] }, 'names.uri.allow'],
    ['another kind of key', { ...base, key: 'P-521' }, 'key.type'],
  ]
  for (const [what, asked, check] of cases) {
    const decision = await explain(asked)
    t.equal(decision.allowed, false, what)
    t.same(failed(decision), [check], what)
    const answer = await service.request('POST', '/v1/certificates', {
      body: { csr: csrOf(asked), profile: 'provenance' },
    })
    t.equal(answer.status, 422)
    t.same([...new Set(answer.json.violations.map((violation: CheckResult) => violation.check))], [check])
  }
  for (const wrong of fc.sample(fc.tuple(asks, fc.constantFrom(...cases)), { numRuns: 60, seed: 7 })) {
    const [good, [, bad, check]] = wrong
    const [first = ''] = bad.names
    const mixed: Asked = check.startsWith('names.')
      ? { ...good, names: [...good.names.filter((name) => name !== first), first] }
      : check === 'key.type'
        ? { ...good, key: 'P-521' }
        : {
            ...good,
            ...(check === 'subject.locality' ? { locality: bad.locality ?? '' } : { commonName: bad.commonName ?? '' }),
          }
    t.same(failed(await explain(mixed)), [check], JSON.stringify(mixed))
  }
})
