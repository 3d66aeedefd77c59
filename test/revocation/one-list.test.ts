/** An issuer with one list: whoever knows nothing of lists of a part, and whoever keeps one list of each issuer, can use it. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { parseCrl } from '../../src/x509/crl.ts'
import { encodePem } from '../../src/x509/pem.ts'
import { named, openTestRoot } from '../helpers/ceremony.ts'
import { type Issued, issueAt, revokeAt } from '../helpers/certificates.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { assertTools, run } from '../interop/tools.ts'

await assertTools('openssl', 'certtool')
const service = await openTestService(t, { CHANCERY_STAGING_TIME: '0s' })
const folder = await mkdtemp(join(tmpdir(), 'chancery-one-list-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
const root = openTestRoot()

const begin = async (name: string, shards: number, subject = name): Promise<void> => {
  const asked = await service.request('POST', '/v1/issuer-requests', {
    body: { name, authority: 'default', subject: named(subject) },
  })
  const body = { chain: root.certify(asked.json.csr) + root.pem, shards }
  t.equal((await service.request('PUT', `/v1/issuers/${name}`, { body })).status, 201)
  t.equal((await service.request('POST', `/v1/issuers/${name}/moves`, { body: { move: 'activate' } })).status, 200)
}
const issue = (): Promise<Issued> => issueAt(service)
const revoke = (serial: string): Promise<void> => revokeAt(service, serial)
const fetchList = (issuer: string, shard: number): Promise<Response> =>
  fetch(`${service.publicUrl}/crl/${issuer}/${shard}.crl`)
const listOf = async (issuer: string, shard = 0): Promise<Buffer> =>
  Buffer.from(await (await fetchList(issuer, shard)).arrayBuffer())
const at = (name: string): string => join(folder, name)

slowTest('the list of an issuer with one list is of all of it, and needs no switch', async (t) => {
  await begin('whole', 1)
  const [good, bad] = [await issue(), await issue()]
  t.match([good, bad], [{ issuer: 'whole' }, { issuer: 'whole' }])
  await revoke(bad.serial)
  await service.service.publishCrls()

  const der = await listOf('whole')
  const list = parseCrl(der)
  t.equal(list.distributionPoint, undefined)
  t.same(
    list.revoked.map(({ serial }) => serial.toString('hex')),
    [bad.serial],
  )
  t.equal((await fetchList('whole', 1)).status, 404, 'and there is no other')

  await writeFile(at('root.pem'), root.pem)
  await writeFile(at('issuer.pem'), good.chain.join(''))
  await writeFile(at('list.pem'), encodePem('X509 CRL', der))
  const shown = (await run('openssl', ['crl', '-noout', '-text'], encodePem('X509 CRL', der))).stdout
  t.notMatch(shown, /critical/, 'nothing that anybody must understand')
  t.match(shown, /X509v3 CRL Number/)
  for (const [{ certificate }, outcome] of [
    [good, /leaf\.pem: OK/],
    [bad, /error 23 .*certificate revoked/],
  ] as const) {
    await writeFile(at('leaf.pem'), certificate)
    t.match(await uriIn(certificate), /\/crl\/whole\/0\.crl$/)
    const files = ['-CRLfile', at('list.pem'), '-CAfile', at('root.pem'), '-untrusted', at('issuer.pem')]
    const { stdout, stderr } = await run('openssl', ['verify', '-x509_strict', '-crl_check', ...files, at('leaf.pem')])
    t.match(stdout + stderr, outcome)
    await writeFile(at('chain.pem'), certificate + good.chain.join(''))
    const lists = ['--load-ca-certificate', at('root.pem'), '--load-crl', at('list.pem')]
    const judged = await run('certtool', ['--verify', ...lists, '--infile', at('chain.pem')])
    t.equal(judged.code === 0, outcome.test('leaf.pem: OK'), judged.stdout + judged.stderr)
    t.match(judged.stdout, judged.code === 0 ? /The certificate is trusted/ : /certificate chain is revoked/)
  }
  const verified = await run(
    'certtool',
    ['--verify-crl', '--load-ca-certificate', at('issuer.pem')],
    encodePem('X509 CRL', der),
  )
  t.match(verified, { code: 0, stdout: /Verified/ })
})

slowTest('with two, each certificate is on the one that it names', async (t) => {
  await begin('halves', 2)
  const seen = new Set<string>()
  for (let i = 0; seen.size < 2 && i < 100; i += 1) {
    const { serial, certificate } = await issue()
    const shard = Buffer.from(serial, 'hex').readUInt32BE(12) % 2
    t.match(await uriIn(certificate), new RegExp(`/crl/halves/${shard}\\.crl$`))
    await revoke(serial)
    await service.service.publishCrls()
    const list = parseCrl(await listOf('halves', shard))
    t.same(list.distributionPoint, { url: `http://pki.test/crl/halves/${shard}.crl`, only: 'user' })
    t.ok(list.revoked.some((entry) => entry.serial.toString('hex') === serial))
    seen.add(String(shard))
  }
  t.equal(seen.size, 2)
  t.equal((await fetchList('halves', 2)).status, 404)
})

t.test('GnuTLS keeps one list of each name, OpenSSL of each key: the next issuer has another name', async (t) => {
  /** Who refuses what is revoked by the one, and by the one that follows it, with the lists of both. */
  const refusals = async (subjects: readonly string[]): Promise<Record<string, readonly boolean[]>> => {
    const revoked: Issued[] = []
    const lists: string[] = []
    for (const [i, subject] of subjects.entries()) {
      const name = `${subject.toLowerCase()}-${i}`
      await begin(name, 1, subject)
      const issued = await issue()
      t.equal(issued.issuer, name)
      await revoke(issued.serial)
      await service.service.publishCrls()
      revoked.push(issued)
      lists.push(encodePem('X509 CRL', await listOf(name)))
    }
    await writeFile(at('root.pem'), root.pem)
    await writeFile(at('lists.pem'), lists.join(''))
    const refused: Record<string, boolean[]> = { openssl: [], certtool: [] }
    for (const { certificate, chain } of revoked) {
      await writeFile(at('chain.pem'), certificate + chain.join(''))
      for (const [program, args] of [
        ['openssl', ['verify', '-crl_check', '-CRLfile', at('lists.pem'), '-CAfile', at('root.pem'), '-untrusted']],
        ['certtool', ['--verify', '--load-ca-certificate', at('root.pem'), '--load-crl', at('lists.pem'), '--infile']],
      ] as const) {
        const files = [at('chain.pem'), ...(program === 'openssl' ? [at('chain.pem')] : [])]
        const { code, stdout, stderr } = await run(program, [...args, ...files])
        if (code !== 0) t.match(stdout + stderr, /revoked/)
        refused[program]?.push(code !== 0)
      }
    }
    return refused
  }
  t.same(await refusals(['First', 'Next']), { openssl: [true, true], certtool: [true, true] })
  t.same(await refusals(['Same', 'Same']), { openssl: [true, true], certtool: [false, true] })
})

const uriIn = async (certificate: string): Promise<string> => {
  const { stdout } = await run('openssl', ['x509', '-noout', '-ext', 'crlDistributionPoints'], certificate)
  return /URI:(\S+)/.exec(stdout)?.[1] ?? ''
}
