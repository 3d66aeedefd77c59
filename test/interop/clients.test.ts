/** Real clients against the real service over HTTPS: curl, wget, openssl and cfssl, as the guides use them. */
import { createHash, X509Certificate } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t, { type Test } from 'tap'

import { checks } from '../../src/policy/checks.ts'
import type { CheckResult } from '../../src/policy/decide.ts'
import { openTestService } from '../helpers/service.ts'
import { readByOpenssl } from './reads.ts'
import { assertTools, output, run } from './tools.ts'

await assertTools('openssl', 'curl', 'wget', 'cfssl')
t.setTimeout(300_000)
const folder = await mkdtemp(join(tmpdir(), 'chancery-clients-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
const service = await openTestService(t)
const at = (name: string): string => join(folder, name)
await writeFile(at('root.pem'), service.ca)
await writeFile(at('token.header'), `Authorization: Bearer ${service.adminToken}\n`, { mode: 0o600 })

const newRequest = async (name: string, subj: string, ...extensions: readonly string[]): Promise<string> => {
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', at(`${name}.key`)]
  const added = extensions.flatMap((extension) => ['-addext', extension])
  const pem = await output('openssl', ['req', '-new', ...key, '-subj', subj, ...added])
  await writeFile(at(`${name}.pem`), pem)
  return pem
}

interface Curled {
  readonly status: number
  readonly type: string
  readonly text: string
}

const curl = async (path: string, ...args: readonly string[]): Promise<Curled> => {
  const format = ['-w', '\n%{http_code} %{content_type}', '-H', `@${at('token.header')}`]
  const text = await output('curl', ['-sS', '--cacert', at('root.pem'), ...format, ...args, `${service.url}${path}`])
  const line = text.lastIndexOf('\n')
  const [status = '', ...type] = text.slice(line + 1).split(' ')
  return { status: Number(status), type: type.join(' '), text: text.slice(0, line) }
}

/** The chain of a certificate is accepted by `openssl verify`, with the root alone as anchor. */
const verifies = async (t: Test, certificate: string, chain: readonly string[]): Promise<void> => {
  await Promise.all([writeFile(at('leaf.pem'), certificate), writeFile(at('chain.pem'), chain.join(''))])
  const args = ['verify', '-x509_strict', '-CAfile', at('root.pem'), '-untrusted', at('chain.pem'), at('leaf.pem')]
  t.equal(await output('openssl', args), `${at('leaf.pem')}: OK\n`)
}

const blocksOf = (text: string): readonly string[] =>
  text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/g) ?? []

t.test('one request through curl as PEM, JSON, DER and base64 is one certificate each time', async (t) => {
  const pem = await newRequest('same', '/', 'subjectAltName=DNS:same.example.com')
  await output('openssl', ['req', '-in', at('same.pem'), '-outform', 'DER', '-out', at('same.der')])
  await writeFile(at('same.base64'), await output('openssl', ['base64', '-in', at('same.der')]))
  await writeFile(at('same.json'), JSON.stringify({ csr: pem, profile: 'server' }))
  const ways: readonly (readonly [file: string, type: string, path: string])[] = [
    ['same.pem', 'application/x-pem-file', '/v1/certificates?profile=server'],
    ['same.json', 'application/json', '/v1/certificates'],
    ['same.der', 'application/pkcs10', '/v1/certificates?profile=server'],
    ['same.base64', 'application/pkcs10', '/v1/certificates?profile=server'],
  ]
  const keys = new Set<string>()
  for (const [file, type, path] of ways) {
    const answer = await curl(path, '-H', `Content-Type: ${type}`, '--data-binary', `@${at(file)}`)
    t.equal(answer.status, 201, `${file}: ${answer.text}`)
    const { certificate, chain } = JSON.parse(answer.text)
    await verifies(t, certificate, chain)
    const { names, key } = await readByOpenssl(at('leaf.pem'))
    t.same(names, ['dns:same.example.com'])
    keys.add(key)
  }
  t.equal(keys.size, 1, 'all four carry the key of the request')
})

t.test('curl gets the PEM chain, leaf first, without the root', async (t) => {
  await newRequest('chain', '/', 'subjectAltName=DNS:chain.example.com')
  const send = ['-H', 'Content-Type: application/x-pem-file', '--data-binary', `@${at('chain.pem')}`]
  const answer = await curl(
    '/v1/certificates?profile=server',
    ...send,
    '-H',
    'Accept: application/pem-certificate-chain',
  )
  t.equal(answer.status, 201, answer.text)
  t.equal(answer.type, 'application/pem-certificate-chain')
  const [leaf = '', ...chain] = blocksOf(answer.text)
  t.equal([leaf, ...chain].join(''), answer.text, 'blocks and nothing else')
  t.equal(new X509Certificate(leaf).subjectAltName, 'DNS:chain.example.com')
  t.notOk(chain.some((one) => new X509Certificate(one).issuer === new X509Certificate(one).subject))
  await verifies(t, leaf, chain)
})

/** Every check of the table has said something; those of attributes and bindings only where the profile has such rules. */
const everyCheck = (t: Test, told: readonly CheckResult[], allowed: boolean): void => {
  const ids = new Set(told.map(({ check }) => check))
  const expected = checks
    .map(({ id }) => id)
    .filter((id) => !/^subject\.(?!others|systemMasters|present)|^bind|^rule/.test(id))
  t.same(
    expected.filter((id) => !ids.has(id)),
    [],
    'no check is silent',
  )
  t.ok(told.every(({ outcome, reason }) => ['passed', 'failed', 'skipped'].includes(outcome) && reason !== ''))
  t.equal(
    told.every(({ outcome }) => outcome !== 'failed'),
    allowed,
  )
}

t.test('a dry run shows every check, allowed or refused; the refused request alone is in the records', async (t) => {
  await newRequest('good', '/', 'subjectAltName=DNS:good.example.com')
  await newRequest('evil', '/', 'subjectAltName=DNS:good.example.com,DNS:shop.evil.test')
  const send = (name: string): readonly string[] => [
    '-H',
    'Content-Type: application/x-pem-file',
    '--data-binary',
    `@${at(`${name}.pem`)}`,
  ]
  const allowed = await curl('/v1/certificates?profile=server&dryRun=true', ...send('good'))
  t.equal(allowed.status, 200)
  const decision = JSON.parse(allowed.text)
  t.equal(decision.allowed, true)
  everyCheck(t, decision.checks, true)

  const refused = await curl('/v1/certificates?profile=server&dryRun=true', ...send('evil'))
  t.equal(refused.status, 200, 'a dry run answers, it does not refuse')
  const why = JSON.parse(refused.text)
  t.equal(why.allowed, false)
  everyCheck(t, why.checks, false)
  const violation = { check: 'names.dns.allow', field: '/names/1', value: 'shop.evil.test' }
  t.match(why.violations, [violation])
  t.same(JSON.parse((await curl('/v1/refusals?code=san.forbidden')).text).items, [], 'a dry run records nothing')

  const sent = await curl('/v1/certificates?profile=server', ...send('evil'))
  t.equal(sent.status, 422)
  t.equal(sent.type, 'application/problem+json')
  const problem = JSON.parse(sent.text)
  t.match(problem, { code: 'san.forbidden', retryable: false, violations: [violation] })
  // Who else holds the key is looked up by a dry run, but not for a request that is refused anyway.
  const lookedUp = ({ check }: { check: string }) => !['key.principal', 'key.compromised'].includes(check)
  t.same(problem.checks.filter(lookedUp), why.checks.filter(lookedUp), 'the problem tells the same checks')
  const { items } = JSON.parse((await curl('/v1/refusals?code=san.forbidden')).text)
  t.equal(items.length, 1)
  await output('openssl', ['req', '-in', at('evil.pem'), '-outform', 'DER', '-out', at('evil.der')])
  const digest = (await output('openssl', ['dgst', '-sha256', '-r', at('evil.der')])).slice(0, 64)
  t.match(items[0], { principal: 'admin', profile: 'server', code: 'san.forbidden', digest, violations: [violation] })
})

t.test('the example of many Kubernetes guides is issued by kube-apiserver, made by openssl and by cfssl', async (t) => {
  const hosts = ['10.0.0.1', '127.0.0.1', 'kubernetes.default']
  const subj = '/C=US/ST=CA/L=SF/O=Kubernetes/OU=Cluster/CN=kube-apiserver'
  const names = 'subjectAltName=IP:10.0.0.1,IP:127.0.0.1,DNS:kubernetes.default'
  const byOpenssl = await newRequest('guide', subj, names, 'keyUsage=digitalSignature,keyEncipherment')
  const asked = {
    CN: 'kube-apiserver',
    hosts,
    key: { algo: 'rsa', size: 2048 },
    names: [{ C: 'US', L: 'SF', ST: 'CA', O: 'Kubernetes', OU: 'Cluster' }],
  }
  const byCfssl = JSON.parse(await output('cfssl', ['genkey', '-'], JSON.stringify(asked))).csr as string
  for (const [maker, csr, usages] of [
    ['openssl', byOpenssl, ['digitalSignature']],
    ['cfssl', byCfssl, ['digitalSignature', 'keyEncipherment']],
  ] as const) {
    await writeFile(at('guide.json'), JSON.stringify({ csr, profile: 'kube-apiserver' }))
    const answer = await curl('/v1/certificates', '--json', `@${at('guide.json')}`)
    t.equal(answer.status, 201, `${maker}: ${answer.text}`)
    const { certificate, chain, notes } = JSON.parse(answer.text)
    await verifies(t, certificate, chain)
    const reading = await readByOpenssl(at('leaf.pem'))
    t.same(reading.subject, ['CN=kube-apiserver'], maker)
    t.same(reading.names, ['dns:kubernetes.default', 'ip:10.0.0.1', 'ip:127.0.0.1'])
    t.same(reading.keyUsage, usages)
    t.same(reading.extendedKeyUsage, ['serverAuth'])
    const dropped = (notes as { field: string }[]).map(({ field }) => field)
    for (const type of ['country', 'province', 'locality', 'organization', 'organizationalUnit'])
      t.ok(dropped.includes(`/subject/${type}`), `${maker}: ${type} is noted as dropped`)
  }
})

t.test("cert-manager's default request is issued by server; keyEncipherment is dropped and noted", async (t) => {
  const csr = await newRequest(
    'cert-manager',
    '/',
    'subjectAltName=critical,DNS:app.example.com',
    'keyUsage=critical,digitalSignature,keyEncipherment',
  )
  await writeFile(at('cert-manager.json'), JSON.stringify({ csr, profile: 'server' }))
  const answer = await curl('/v1/certificates', '--json', `@${at('cert-manager.json')}`)
  t.equal(answer.status, 201, answer.text)
  const { certificate, chain, notes } = JSON.parse(answer.text)
  await verifies(t, certificate, chain)
  t.match(await readByOpenssl(at('leaf.pem')), {
    subject: { length: 0 },
    names: ['dns:app.example.com'],
    namesCritical: true,
    keyUsage: ['digitalSignature'],
  })
  t.match(notes, [{ field: '/keyUsage', reason: /^keyEncipherment is dropped/ }])
})

t.test(
  "our own HTTPS certificate is verified by wget, openssl and curl, by each of its names, and by no other's root",
  async (t) => {
    const { port } = new URL(service.url)
    for (const host of ['127.0.0.1', 'localhost']) {
      const got = await run('wget', [
        '-q',
        '-O',
        '-',
        `--ca-certificate=${at('root.pem')}`,
        `https://${host}:${port}/livez`,
      ])
      t.equal(got.code, 0, `wget ${host}: ${got.stderr}`)
      const verify = ['-CAfile', at('root.pem'), '-verify_return_error', '-x509_strict', '-brief']
      const name = host === 'localhost' ? ['-verify_hostname', host] : ['-verify_ip', host]
      const session = await run('openssl', ['s_client', '-connect', `127.0.0.1:${port}`, ...verify, ...name])
      t.match(session.stderr, /Verification: OK/, host)
      t.match(session.stderr, /Protocol version: TLSv1\.3/)
    }
    const stranger = ['-CAfile', '/dev/null', '-verify_return_error', '-brief']
    const refused = await run('openssl', ['s_client', '-connect', `127.0.0.1:${port}`, ...stranger])
    t.not(refused.code, 0, 'without the root nothing verifies')
    const old = await run('openssl', ['s_client', '-connect', `127.0.0.1:${port}`, '-tls1_1', '-brief'])
    t.not(old.code, 0, 'TLS 1.1 is not spoken')
    const blind = await run('curl', ['-sS', `${service.url}/livez`])
    t.equal(blind.code, 60, 'curl without --cacert does not trust us')
  },
)

t.test('a body that cannot be decoded is in the records by the digest of what was sent', async (t) => {
  const body = Buffer.from('not a request at all: \xe9\xff', 'latin1')
  await writeFile(at('noise'), body)
  for (const type of ['application/x-pem-file', 'application/pkcs10']) {
    const send = ['-H', `Content-Type: ${type}`, '--data-binary', `@${at('noise')}`]
    t.equal((await curl('/v1/certificates?profile=server', ...send)).status, 400)
    const { items } = JSON.parse((await curl('/v1/refusals?code=csr.pem&limit=1')).text)
    t.equal(items[0].digest, createHash('sha256').update(body).digest('hex'), type)
  }
})
