/** Chains that openssl made, with extensions that no ceremony of ours writes. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t, { type Test } from 'tap'

import { assertChainFits } from '../../src/ca/issuers/certification-path.ts'
import type { Problem, Violation } from '../../src/errors.ts'
import { checkOne } from '../../src/keys/verifier-batch.ts'
import { type SignatureAlgorithm, signatureAlgorithm } from '../../src/x509/algorithms.ts'
import { parseCertificate } from '../../src/x509/certificate.ts'
import { openDer, tags } from '../../src/x509/der.ts'
import { type PemLabel, parsePem } from '../../src/x509/pem.ts'
import { openTestRoot } from '../helpers/ceremony.ts'
import { slowTest } from '../helpers/slow.ts'
import { assertTools, output, run } from '../interop/tools.ts'
import { commonName, pem, rdn, request, seq, utf8 } from '../x509/build.ts'

await assertTools('openssl', 'cfssl', 'certtool')

const issuerName = '/CN=issuer/emailAddress=ca@mail.example.com'

/** With this further extension, or with it in the place of its like; `name=` leaves that out. */
const authority = (more: string, pathLength = ',pathlen:0'): string =>
  [
    `basicConstraints=critical,CA:TRUE${pathLength}`,
    'keyUsage=critical,keyCertSign,cRLSign',
    'subjectKeyIdentifier=hash',
  ]
    .filter((line) => line.split('=')[0] !== more.split('=')[0])
    .concat(more.endsWith('=') ? '' : more)
    .join('\n')

interface Kinds {
  readonly rootKey?: readonly string[]
  readonly issuerKey?: readonly string[]
  readonly root?: string
  /** Of what the root signs. */
  readonly signing?: readonly string[]
}

/** What is wrong with a chain of an issuer and its root that have these further extensions. */
const openBench = async (t: Test, kinds: Kinds = {}) => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-chain-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const at = (name: string): string => join(folder, name)
  const openssl = async (...args: readonly string[]): Promise<void> => {
    const { code, stderr } = await run('openssl', args)
    if (code !== 0) throw new Error(stderr)
  }
  const p256 = ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256']
  const { rootKey = p256, issuerKey = p256, root = '/CN=root', signing = [] } = kinds
  const subjects = {
    root: [root, rootKey],
    issuer: [issuerName, issuerKey],
  } as const
  for (const [name, [subject, key]] of Object.entries(subjects))
    await openssl(
      ...['req', '-utf8', '-newkey', ...key, '-nodes'],
      ...['-keyout', at(`${name}.key`), '-subj', subject, '-out', at(`${name}.csr`)],
    )
  const der = async (name: string, label: PemLabel): Promise<Buffer> => parsePem(await readFile(at(name)), label)
  return async (ofIssuer: string, ofRoot = '', told = placeOf): Promise<readonly string[]> => {
    await writeFile(at('root.ext'), authority(ofRoot, ''))
    await writeFile(at('issuer.ext'), authority(ofIssuer))
    const serial = ['-set_serial', '0x4f66712439e4988e6b32421afaca0ecf']
    const made = (name: string) => ['-in', at(`${name}.csr`), '-extfile', at(`${name}.ext`), '-out', at(`${name}.pem`)]
    await openssl('x509', '-req', ...made('root'), '-key', at('root.key'), '-days', '90', ...serial, ...signing)
    const by = ['-CA', at('root.pem'), '-CAkey', at('root.key')]
    await openssl('x509', '-req', ...made('issuer'), ...by, '-days', '30', ...serial, ...signing)
    const chain = [await der('issuer.pem', 'CERTIFICATE'), await der('root.pem', 'CERTIFICATE')]
    const csr = await der('issuer.csr', 'CERTIFICATE REQUEST')
    const found = await assertChainFits({ chain, csr, now: new Date(), verify: async () => true }).catch(
      (error: Problem) => error,
    )
    t.notMatch(found?.detail ?? '', /\.\.$|.{400}/, 'one sentence')
    return (found?.options.violations ?? []).map(told)
  }
}

const placeOf = ({ check, field }: Violation): string => `${check} ${field}`

slowTest('no link of a chain has what would keep relying parties from accepting a leaf below it', async (t) => {
  const faults = await openBench(t)
  const harmless = [
    '',
    'nameConstraints=critical,permitted;DNS:example.com',
    '1.2.3.4.5=DER:0500',
    'certificatePolicies=2.5.29.32.0',
    'authorityKeyIdentifier=keyid:always,issuer:always',
    'nameConstraints=critical,permitted;DNS:.example.com,excluded;IP:0.0.0.0/0.0.0.0,permitted;email:.example.com',
    'nameConstraints=critical,permitted;URI:.example.com,permitted;dirName:other\n[other]\nO=Other',
  ]
  for (const more of harmless) t.same(await faults(more), [], more)
  for (const [more, check] of [
    ['extendedKeyUsage=codeSigning', 'chain.extendedKeyUsage'],
    ['extendedKeyUsage=clientAuth', 'chain.extendedKeyUsage'],
    ['extendedKeyUsage=serverAuth,clientAuth', 'chain.extendedKeyUsage'],
    ['1.2.3.4.5=critical,DER:0500', 'chain.critical'],
    ['policyConstraints=critical,requireExplicitPolicy:0', 'chain.critical'],
    // Each keeps Go from reading the certificate, or OpenSSL from finding a path.
    ['2.5.29.30=critical,DER:3000', 'chain.nameConstraints'],
    ['nameConstraints=critical,permitted;DNS:example.com.', 'chain.nameConstraints'],
    ['nameConstraints=critical,permitted;IP:10.0.0.0/255.0.255.0', 'chain.nameConstraints'],
    ['2.5.29.30=critical,DER:300aa0083006' + '87040a000000', 'chain.nameConstraints'],
    ['nameConstraints=critical,excluded;URI:10.0.0.1', 'chain.nameConstraints'],
    ['nameConstraints=critical,excluded;email:a@b..c', 'chain.nameConstraints'],
    ['nameConstraints=critical,excluded;email:@other.example', 'chain.nameConstraints'],
    ['nameConstraints=critical,excluded;email:a@.other.example', 'chain.nameConstraints'],
    ['nameConstraints=critical,excluded;URI:.', 'chain.nameConstraints'],
    ['2.5.29.35=DER:30058003616263', 'chain.authorityKey'],
    // No certificatePolicies at all, which we do not look into.
    ['2.5.29.32=DER:0500', 'chain.secondReader'],
  ] as const) {
    t.same(await faults(more), [`${check} /chain/0`], `${more} in the issuer`)
    t.same(await faults('', more), [`${check} /chain/1`], `${more} in the root`)
  }
  const serialAlone = '2.5.29.35=DER:3003820105'
  const [of, ofRoot] = [await faults(serialAlone), await faults('', serialAlone)]
  t.same(of, ['chain.authorityKey /chain/0', 'chain.authorityKey /chain/0'], 'another serial, and no key identifier')
  t.same(ofRoot, ['chain.authorityKey /chain/1'])
  for (const fine of ['permitted;email:mail.example.com', 'permitted;DNS:example.org', 'excluded;email:ca@example.com'])
    t.same(await faults('', `nameConstraints=critical,${fine}`), [], fine)
  for (const wrong of ['permitted;email:example.com', 'excluded;email:.example.com'])
    t.same(await faults('', `nameConstraints=critical,${wrong}`), ['chain.nameConstraints /chain/0'], wrong)
})

t.test('an issuer may sign certificates and lists, of leaves alone, and what is above it certificates', async (t) => {
  const faults = await openBench(t)
  for (const [more, ofIssuer, ofRoot] of [
    ['keyUsage=critical,keyCertSign', ['chain.crlSign'], []],
    ['keyUsage=critical,cRLSign', ['chain.keyUsage'], ['chain.keyUsage']],
    ['basicConstraints=critical,CA:FALSE', ['chain.isCa', 'chain.pathLength'], ['chain.isCa']],
    ['basicConstraints=critical,CA:TRUE', ['chain.pathLength'], []],
    ['basicConstraints=critical,CA:TRUE,pathlen:1', ['chain.pathLength'], []],
    ['basicConstraints=critical,CA:TRUE,pathlen:0', [], ['chain.pathLengthAbove']],
    ['subjectKeyIdentifier=none', ['chain.keyIdentifier'], []],
  ] as const) {
    t.same(
      await faults(more),
      ofIssuer.map((check) => `${check} /chain/0`),
      `${more} in the issuer`,
    )
    t.same(
      await faults('', more),
      ofRoot.map((check) => `${check} /chain/1`),
      `${more} in the root`,
    )
  }
  const reasonOf = ({ check, reason }: Violation): string => `${check}: ${reason}`
  const none = 'chain.keyUsage: it has no key usage, which would say that it may sign certificates (RFC 5280 4.2.1.3)'
  t.same(await faults('', 'keyUsage=', reasonOf), [none], 'as the root of "openssl req -x509"')
  t.same((await faults('keyUsage=', '', reasonOf))[0], none)
})

t.test(
  'what readers of RFC 5280 to the letter reject is refused of all but the root, whose extensions not everybody heeds',
  async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'chancery-strict-'))
    t.teardown(() => rm(folder, { recursive: true, force: true }))
    const at = (name: string): string => join(folder, name)
    const days = { root: '90', between: '60', issuer: '30' } as const
    const names = Object.keys(days) as (keyof typeof days)[]
    const make = async (name: keyof typeof days, by: string, more: string): Promise<Buffer> => {
      await writeFile(at('ext'), authority(more, name === 'issuer' ? ',pathlen:0' : ''))
      const signer = by === name ? ['-key', at(`${by}.key`)] : ['-CA', at(`${by}.pem`), '-CAkey', at(`${by}.key`)]
      const files = ['-in', at(`${name}.csr`), '-extfile', at('ext'), '-out', at(`${name}.pem`)]
      await output('openssl', ['x509', '-req', ...files, ...signer, '-days', days[name]])
      return parsePem(await readFile(at(`${name}.pem`)), 'CERTIFICATE')
    }
    for (const name of names) {
      const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', at(`${name}.key`)]
      await output('openssl', ['req', ...key, '-subj', `/CN=${name}`, '-out', at(`${name}.csr`)])
    }
    const csr = parsePem(await readFile(at('issuer.csr')), 'CERTIFICATE REQUEST')
    const sound = 'authorityKeyIdentifier=keyid:always'
    const faults = async (more: Partial<Record<keyof typeof days, string>>) => {
      const root = await make('root', 'root', more.root ?? '')
      const between = await make('between', 'root', more.between ?? sound)
      const issuer = await make('issuer', 'between', more.issuer ?? sound)
      const strict = ['-x509_strict', '-CAfile', at('root.pem'), '-untrusted', at('between.pem'), at('issuer.pem')]
      const told = await assertChainFits({
        chain: [issuer, between, root],
        csr,
        now: new Date(),
        verify: async () => true,
      }).then(
        () => [],
        ({ options }: Problem) => (options.violations ?? []).map(({ check, field }) => `${check} ${field}`),
      )
      return { told, strict: (await run('openssl', ['verify', ...strict])).code === 0 }
    }
    t.same(await faults({}), { told: [], strict: true })
    for (const [more, told] of [
      [{ issuer: 'basicConstraints=CA:TRUE,pathlen:0' }, 'chain.constraintsCritical /chain/0'],
      [{ between: 'basicConstraints=CA:TRUE' }, 'chain.constraintsCritical /chain/1'],
      [{ issuer: 'authorityKeyIdentifier=none' }, 'chain.authorityKey /chain/0'],
      [{ between: 'authorityKeyIdentifier=none' }, 'chain.authorityKey /chain/1'],
      [
        { between: `subjectKeyIdentifier=none\n${sound}`, issuer: 'authorityKeyIdentifier=none' },
        'chain.keyIdentifier /chain/1',
      ],
    ] as const)
      t.same(await faults(more), { told: [told], strict: false }, told)
    t.same(await faults({ root: 'basicConstraints=CA:TRUE' }), { told: [], strict: false })
  },
)

t.test(
  'a subject is that which was asked for in whatever type its strings are written, as by cfssl in another',
  async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'chancery-cfssl-'))
    t.teardown(() => rm(folder, { recursive: true, force: true }))
    const at = (name: string): string => join(folder, name)
    const csr = request({ subject: commonName('issuer') })
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', at('root.key')]
    const ofRoot = ['-subj', '/CN=root', '-days', '90', '-addext', 'keyUsage=critical,keyCertSign,cRLSign']
    await output('openssl', ['req', '-x509', ...key, ...ofRoot, '-out', at('root.pem')])
    await writeFile(at('issuer.csr'), pem(csr))
    const authorityOnly = { is_ca: true, max_path_len: 0, max_path_len_zero: true }
    const usages = ['cert sign', 'crl sign']
    const signing = { default: { expiry: '720h', usages, ca_constraint: authorityOnly } }
    await writeFile(at('cfssl.json'), JSON.stringify({ signing }))
    const by = ['-ca', at('root.pem'), '-ca-key', at('root.key'), '-config', at('cfssl.json')]
    const { cert } = JSON.parse(await output('cfssl', ['sign', ...by, at('issuer.csr')]))
    const chain = [parsePem(cert, 'CERTIFICATE'), parsePem(await readFile(at('root.pem')), 'CERTIFICATE')]
    t.notSame(chain.map((der) => parseCertificate(der).facts.subjectDer)[0], commonName('issuer'), 'in another')
    await assertChainFits({ chain, csr, now: new Date(), verify: async () => true })
  },
)

t.test('openssl ca and certtool make what fits, told what docs/ceremonies.md says of them', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-tools-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const at = (name: string): string => join(folder, name)
  const attributes = [rdn('2.5.4.3', utf8('issuer')), rdn('2.5.4.7', utf8('Bern')), rdn('2.5.4.10', utf8('Example'))]
  const csr = request({ subject: seq(...attributes) })
  const [key, cert] = [at('root.key'), at('root.pem')]
  const made = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-out', cert]
  const ofRoot = ['-subj', '/CN=root', '-days', '90', '-addext', 'keyUsage=critical,keyCertSign,cRLSign']
  await output('openssl', ['req', '-x509', ...made, ...ofRoot])
  const policy = 'organizationName=optional\ncommonName=supplied'
  const settings = `new_certs_dir=${folder}\ndatabase=${at('index')}\nrand_serial=yes\ndefault_md=sha256\npolicy=policy`
  const extensions = authority('authorityKeyIdentifier=keyid:always')
  for (const [name, text] of [
    ['csr', pem(csr)],
    ['index', ''],
    [
      'ca.cnf',
      `[ca]\ndefault_ca=own\n[own]\n${settings}\nx509_extensions=ext\n[policy]\n${policy}\n[ext]\n${extensions}\n`,
    ],
    ['template', 'ca\npath_len = 0\ncert_signing_key\ncrl_signing_key\nexpiration_days = 30\n'],
  ] as const)
    await writeFile(at(name), text)
  const byCa = [
    'ca',
    '-batch',
    '-config',
    at('ca.cnf'),
    '-cert',
    cert,
    '-keyfile',
    key,
    '-days',
    '30',
    '-in',
    at('csr'),
  ]
  const signer = ['--load-ca-certificate', cert, '--load-ca-privkey', key, '--template', at('template')]
  const root = parsePem(await readFile(cert), 'CERTIFICATE')
  const faults = async (tool: 'openssl' | 'certtool', args: readonly string[]): Promise<readonly string[]> => {
    await output(tool, args)
    const chain = [parsePem(await readFile(at('made.pem')), 'CERTIFICATE'), root]
    return assertChainFits({ chain, csr, now: new Date(), verify: async () => true }).then(
      () => [],
      ({ options }: Problem) => (options.violations ?? []).map(({ check, field }) => `${check} ${field}`),
    )
  }
  const out = ['-notext', '-out', at('made.pem')]
  t.same(await faults('openssl', [...byCa, '-preserveDN', ...out]), [])
  t.same(await faults('openssl', [...byCa, ...out]), ['chain.subject /chain/0'], 'in the order of its policy')
  const load = ['--generate-certificate', '--load-request', at('csr'), '--outfile', at('made.pem')]
  t.same(await faults('certtool', [...load, ...signer]), [])
})

t.test('an issuer that has the name of its root stands below none', async (t) => {
  const faults = await openBench(t, { root: issuerName })
  t.same(await faults(''), ['chain.intermediate /chain/0'])
})

t.test('no key of a chain is one that a leaf could not have', async (t) => {
  for (const rootKey of [['rsa:1024'], ['ec', '-pkeyopt', 'ec_paramgen_curve:secp256k1']]) {
    const faults = await openBench(t, { rootKey })
    t.same(await faults(''), ['chain.certificate /chain/1'], rootKey.join(' '))
  }
})

t.test('both readers read what is odd and legal alike: kinds of keys, of signatures and of names', async (t) => {
  const odd = '/C=CH/DC=com/DC=example/O=Prüfstelle, "A\\+B" <x>;/OU=#1\\\\2/CN=日本'
  const ec = (curve: string) => ['ec', '-pkeyopt', `ec_paramgen_curve:${curve}`]
  const cases: readonly (readonly [string, Kinds])[] = [
    ['names', { root: odd }],
    ['ML-DSA', { rootKey: ['mldsa65'] }],
    ['ML-DSA below ML-DSA', { rootKey: ['mldsa87'], issuerKey: ['mldsa44'], root: odd }],
    ['RSA-PSS', { rootKey: ['rsa:3072'], signing: ['-sha384', '-sigopt', 'rsa_padding_mode:pss'] }],
    ['RSA below P-521', { rootKey: ec('P-521'), issuerKey: ['rsa:2048'], signing: ['-sha512'] }],
    ['P-384 by SHA-256', { rootKey: ec('P-384'), signing: ['-sha256'] }],
    ['Ed25519', { rootKey: ['ed25519'], issuerKey: ['ed25519'] }],
  ]
  for (const [what, kinds] of cases) {
    const faults = await openBench(t, kinds)
    t.same(await faults('authorityKeyIdentifier=keyid:always,issuer:always'), [], what)
  }
})

t.test(
  'who says another algorithm than that of the key above is not signed by it: OpenSSL finds no path',
  async (t) => {
    const root = openTestRoot()
    const csr = request({ subject: commonName('issuer') })
    const faults = async (signature: SignatureAlgorithm): Promise<readonly string[]> => {
      const issued = openDer(parsePem(root.certify(pem(csr), { signature }), 'CERTIFICATE'), 'internal')
      const parts = issued.read(tags.sequence, 'Certificate')
      const tbs = parts.element(tags.sequence, 'TBSCertificate')
      parts.skip()
      const issuer = seq(tbs, signature.identifier, parts.element(tags.bitString, 'signatureValue'))
      const chain = [issuer, parsePem(root.pem, 'CERTIFICATE')]
      const fits = assertChainFits({ chain, csr, now: new Date(), verify: async (check) => checkOne(check) })
      return fits.then(
        () => [],
        ({ options }: Problem) => (options.violations ?? []).map(({ check, field }) => `${check} ${field}`),
      )
    }
    t.same(await faults(root.key.algorithm), [])
    for (const id of ['ed25519', 'ml-dsa-44'])
      t.same(await faults(signatureAlgorithm(id)), ['chain.signature /chain/0'], id)
  },
)
