/** Every seeded profile: openssl and GnuTLS agree on its certificates by list and by OCSP, before and after. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { loadSeedDocuments } from '../../src/policy/seeds.ts'
import { parseCertificate } from '../../src/x509/certificate.ts'
import { encodePem, parsePem } from '../../src/x509/pem.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { asks, type Made } from '../interop/asks.ts'
import { assertTools, output, run } from '../interop/tools.ts'

await assertTools('openssl', 'ocsptool')
t.setTimeout(300_000)
const folder = await mkdtemp(join(tmpdir(), 'chancery-standing-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
const service = await openTestService(t)
const at = (name: string): string => join(folder, name)
await writeFile(at('root.pem'), service.ca)

const makeRequest = async (profile: string, { subj, names }: Made): Promise<string> => {
  const sans = names.map((name) => name.replace(/^(dns|ip|uri):/, (kind) => kind.toUpperCase())).join(',')
  return output('openssl', [
    ...[
      'req',
      '-new',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-keyout',
      at(`${profile}.key`),
    ],
    ...['-subj', subj, ...(sans === '' ? [] : ['-addext', `subjectAltName=${sans}`])],
  ])
}

interface Issued {
  readonly profile: string
  readonly serial: string
  readonly issuer: string
}

const issue = async (profile: string, made: Made): Promise<Issued> => {
  const body = { csr: await makeRequest(profile, made), profile }
  const { status, json } = await service.request('POST', '/v1/certificates', { body })
  t.equal(status, 201, profile)
  await writeFile(at(`${profile}.pem`), json.certificate)
  await writeFile(at(`${profile}.chain.pem`), json.chain.join(''))
  return { profile, serial: json.serial, issuer: json.issuer }
}

const said = async (tool: 'openssl' | 'ocsptool', args: readonly string[]): Promise<string> => {
  const { stdout, stderr } = await run(tool, args)
  return stdout + stderr
}

/** What each of them says of it. */
const standing = async ({ profile, issuer }: Issued): Promise<Readonly<Record<string, string>>> => {
  const [leaf, chain, lists] = [at(`${profile}.pem`), at(`${profile}.chain.pem`), at(`${profile}.crls.pem`)]
  const pem = await output('openssl', ['x509', '-in', leaf])
  const urls = [...parseCertificate(parsePem(pem, 'CERTIFICATE')).facts.crlUrls, 'http://pki.test/crl/root.crl']
  const ders = await Promise.all(
    urls.map(async (url) =>
      Buffer.from(await (await fetch(new URL(new URL(url).pathname, service.publicUrl))).arrayBuffer()),
    ),
  )
  await writeFile(lists, ders.map((der) => encodePem('X509 CRL', der)).join(''))
  const verify = ['verify', '-x509_strict', '-extended_crl', '-CRLfile', lists, '-CAfile', at('root.pem')]
  const url = `${service.publicUrl}/ocsp/${issuer}`
  const ask = ['ocsp', '-issuer', chain, '-cert', leaf, '-CAfile', at('root.pem'), '-url', url]
  return {
    crl: await said('openssl', [...verify, '-crl_check', '-untrusted', chain, leaf]),
    'every crl': await said('openssl', [...verify, '-crl_check_all', '-untrusted', chain, leaf]),
    openssl: await said('openssl', [...ask, '-nonce']),
    gnutls: await said('ocsptool', [`--ask=${url}`, '--load-issuer', chain, '--load-cert', leaf]),
  }
}

const good: Readonly<Record<string, RegExp>> = {
  crl: /\.pem: OK\n/,
  'every crl': /\.pem: OK\n/,
  openssl: /Response verify OK[\s\S]*: good\n|: good\n[\s\S]*Response verify OK/,
  gnutls: /Certificate Status: good/,
}
const revoked: Readonly<Record<string, RegExp>> = {
  crl: /error 23 .*certificate revoked/,
  'every crl': /error 23 .*certificate revoked/,
  openssl: /: revoked\n/,
  gnutls: /Certificate Status: revoked/,
}

slowTest('before and after a revocation', async (t) => {
  const profiles = loadSeedDocuments().map((document) => (document as { name: string }).name)
  t.same([...profiles].sort(), Object.keys(asks).sort())
  const issued: Issued[] = []
  for (const profile of profiles) issued.push(await issue(profile, asks[profile] as Made))
  await service.service.publishCrls()
  const check = async (expected: Readonly<Record<string, RegExp>>): Promise<void> => {
    for (const one of issued)
      for (const [who, text] of Object.entries(await standing(one)))
        t.match(text, expected[who] as RegExp, `${who} of ${one.profile}`)
  }
  await check(good)
  for (const { serial } of issued) {
    const body = { reason: 'cessationOfOperation' }
    t.equal((await service.request('POST', `/v1/certificates/${serial}/revocation`, { body })).status, 200)
  }
  await service.service.publishCrls()
  await check(revoked)
})
