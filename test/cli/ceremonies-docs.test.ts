/**
 * docs/ceremonies.md from its start to its end, typed as it stands: a root that is never online, an intermediate whose
 * key is born in a token, and a service in production that starts with neither.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { promisify } from 'node:util'

import t from 'tap'

import { assertChainFits } from '../../src/ca/issuers/certification-path.ts'
import { checkOne } from '../../src/keys/verifier-batch.ts'
import { parsePem, parsePemCertificates } from '../../src/x509/pem.ts'
import { faultsInRecords } from '../crash/checker.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { blocksOf } from '../helpers/docs.ts'
import { bare } from '../helpers/environment.ts'
import { freePort } from '../helpers/port.ts'
import { putCommand } from '../helpers/run.ts'
import { slowTest } from '../helpers/slow.ts'
import { openSoftHsm } from '../hsm/softhsm.ts'

const run = promisify(execFile)
t.setTimeout(300_000)

slowTest('from an empty room to a certificate under a root that was never online', async (t) => {
  const blocks = await blocksOf('docs/ceremonies.md')
  const folder = await mkdtemp(join(tmpdir(), 'chancery-ceremonies-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const hsm = await openSoftHsm(t)
  const database = await openTestDatabase(t)
  const [port, publicPort] = [await freePort(), await freePort()]
  await mkdir(join(folder, 'data'), { mode: 0o700 })

  const env = { ...bare, PATH: await putCommand(join(folder, 'bin')), HOME: folder }
  // As the page has it: what is typed on this machine asks 127.0.0.1, so that must be one of them.
  const [, names = ''] = /^export CHANCERY_NAMES=(\S+)/m.exec(await readFile('docs/ceremonies.md', 'utf8')) ?? []
  const service = {
    ...env,
    ...hsm.env,
    CHANCERY_MODE: 'production',
    CHANCERY_DATA: join(folder, 'data'),
    CHANCERY_LISTEN: `127.0.0.1:${port}`,
    CHANCERY_NAMES: names,
    CHANCERY_PUBLIC_LISTEN: `127.0.0.1:${publicPort}`,
    CHANCERY_PUBLIC_URL: 'http://pki.example.com',
    CHANCERY_DATABASE_URL: database.servingUrl,
    CHANCERY_PKCS11_MODULE: hsm.module,
    CHANCERY_PKCS11_PIN_FILE: hsm.pinFile,
    CHANCERY_ROLL_KEY: 'pkcs11:token=ca;object=roll',
    CHANCERY_CLIENT_CA: join(folder, 'ceremony', 'again.pem'),
  }
  const client = { ...service, CHANCERY_URL: `https://127.0.0.1:${port}` }
  const typed = new Set<string>()
  /** What a block prints. That each step is confirmed by people is tested in cli/ceremony.test.ts. */
  const type = async (name: string, env: Readonly<Record<string, string>>): Promise<string> => {
    typed.add(name)
    t.ok(blocks.has(name), `the page has the block ${name}`)
    const commands = (blocks.get(name) ?? '').replaceAll(/^chancery ceremony .*$/gm, '$& --yes')
    return bash(commands.replace('ca.example.com:8443', `127.0.0.1:${port}`), env)
  }
  const bash = async (commands: string, env: Readonly<Record<string, string>>): Promise<string> => {
    const { stdout, stderr } = await run('bash', ['-ceu', '-o', 'pipefail', commands], { cwd: folder, env })
    return stdout + stderr
  }
  const offline = (name: string): Promise<string> => type(name, env)
  const online = (name: string): Promise<string> => type(name, client)

  await offline('offline-prepare')
  t.match(await offline('offline-root'), /CN\s*=\s*Example Root 2026/)
  await writeFile(join(folder, 'old.cnf'), oldSettings)
  await bash(oldWorld, env)
  await offline('old-root')

  typed.add('online-serve')
  const server = await serve(t, blocks.get('online-serve') ?? '', { cwd: folder, env: service })
  t.match(server.said(), /under a certificate of its own/)
  t.match(server.said(), /stand-in\.pem/)
  t.equal(await ready(port), 503)
  t.match(await online('online-create'), /subject=O\s*=\s*Example, CN\s*=\s*Example Issuing CA 1/)
  await online('online-next')
  await run('cp', [join(folder, 'default.csr'), join(folder, 'default-2036.csr'), join(folder, 'ceremony')])

  t.match(await offline('offline-sign'), /default\.pem: OK/)
  t.match(await offline('offline-openssl'), /openssl\.pem: OK/)
  const made = (name: string): Promise<string> => readFile(join(folder, 'ceremony', name), 'utf8')
  await assertChainFits({
    chain: parsePemCertificates(await made('openssl.chain.pem'), 2),
    csr: parsePem(await made('default.csr'), 'CERTIFICATE REQUEST'),
    now: new Date(),
    verify: async (check) => checkOne(check),
  })
  t.match(await offline('offline-crl'), /verify OK/)
  t.match(await offline('offline-cross'), /cross\.pem: OK/)
  t.match(await offline('offline-ways'), /default-2036\.pem: OK/)
  await offline('offline-witness')

  t.match(await online('online-import'), /default-2026 +default +staged/)
  t.match(await online('online-ways'), /default-2036 has 2 ways up to roots/)
  t.match(await online('online-activate'), /is active/)
  for (let i = 0; i < 100 && (await ready(port)) !== 200; i += 1) await pause(100)
  t.equal(await ready(port), 200)
  await untilFile(join(folder, 'data', 'root.pem'))
  t.equal(
    await readFile(join(folder, 'data', 'root.pem'), 'utf8'),
    await readFile(join(folder, 'ceremony', 'root.pem'), 'utf8'),
  )
  t.match(await online('online-issue'), /web\.pem: OK/)
  t.match(await online('online-crl'), /^List 1 is served/)
  const published = await fetch(`http://127.0.0.1:${publicPort}/root.crl`)
  t.equal(published.status, 200)
  t.same(Buffer.from(await published.arrayBuffer()), await readFile(join(folder, 'ceremony', 'root-1.crl')))

  await offline('old-list')
  t.match(await bash(oldIssuer, client), /moved\.pem: OK[\s\S]*moved is active[\s\S]*List 1 is served/)
  const goesOn = await (await fetch(`http://127.0.0.1:${publicPort}/old.crl`)).arrayBuffer()
  await writeFile(join(folder, 'served.crl'), Buffer.from(goesOn))
  t.match(await bash(oldChecks, env), /web\.crt: OK\n[\s\S]*gone\.crt: verification failed/)
  await online('old-certificate')
  await copyFile(join(folder, 'data', 'root.pem'), join(folder, 'root.pem'))
  // On another machine: its login is no context of this one.
  t.match(await type('old-key', { ...env, XDG_CONFIG_HOME: join(folder, 'elsewhere') }), /is in moved\.pem/)
  t.match(await bash('openssl x509 -in moved.pem -noout -ext subjectAltName', env), /DNS:web\.example\.com/)
  const keys = await bash('for file in old/web.crt moved.pem; do openssl x509 -in $file -noout -pubkey; done', env)
  t.equal(new Set(keys.split('-----BEGIN PUBLIC KEY-----').slice(1)).size, 1, 'the key that it had')

  const look = await online('online-look')
  t.match(look, /neverExtractable: true/)
  t.match(look, /key\.opened .*default-2026/)
  t.match(look, /admin\.token: keep it elsewhere/)
  t.notMatch(look, /Production does not start/, 'and nothing worse')

  t.same(
    [...blocks.keys()].filter((name) => !typed.has(name)),
    [],
    'every block was typed',
  )
  t.match(
    await hsm.tool('--list-objects', '--type', 'privkey'),
    /default-2026[\s\S]*Access: +sensitive, always sensitive, never extractable, local/,
  )
  await server.stop()
  t.same(await faultsInRecords(database.ownerUrl, []), [])
})

/** Another CA, as `openssl req -x509` and `openssl ca` make it: no key usage, and the serial of the root in what it signs. */
const oldSettings = `[ca]
default_ca = old
[old]
database = old/index.txt
new_certs_dir = old
rand_serial = yes
default_md = sha256
default_days = 365
policy = any
copy_extensions = copy
x509_extensions = leaf
[any]
commonName = supplied
[leaf]
authorityKeyIdentifier = keyid,issuer:always
extendedKeyUsage = serverAuth, clientAuth
`
const byOld = 'openssl ca -batch -config old.cnf -cert old/ca.crt -keyfile old/ca.key'
const oldWorld = `mkdir old; : > old/index.txt; echo 01 > old/crlnumber
key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
openssl req -x509 "\${key[@]}" -keyout old/ca.key -subj '/O=Example/CN=Old CA' -days 7300 -out old/ca.crt
for name in web gone
do openssl req -new "\${key[@]}" -keyout old/$name.key -subj /CN=$name -addext subjectAltName=DNS:$name.example.com -out old/$name.csr
  ${byOld} -in old/$name.csr -out old/$name.crt
done
${byOld} -revoke old/gone.crt`

/** An issuer below the old root, by a ceremony with its key. */
const oldIssuer = `chancery issuer create moved --authority moved --key 'pkcs11:token=ca;object=moved' --subject O=Example CN=Moved > moved.csr
sed -e 's/root.key.pem/again.key.pem/; s/root: root.pem/root: again.pem/; s/Example Issuing CA 1/Moved/' \
  -e 's/root.crl/old.crl/; s/default./moved./g' ceremony/default.yaml > ceremony/moved.yaml
chancery ceremony sign ceremony/moved.yaml moved.csr --yes
openssl verify -CAfile old/ca.crt ceremony/moved.pem
chancery issuer import moved ceremony/moved.chain.pem
chancery issuer activate moved
chancery crl import moved old/root.crl`
const oldChecks = `openssl crl -inform DER -in served.crl -out served.pem
for name in web gone
do openssl verify -crl_check -CRLfile served.pem -CAfile old/ca.crt old/$name.crt || true
done`

const serve = async (
  t: { teardown(close: () => Promise<void>): void },
  commands: string,
  options: { readonly cwd: string; readonly env: Readonly<Record<string, string>> },
) => {
  const server: ChildProcess = spawn('bash', ['-ceu', `exec ${commands}`], options)
  let said = ''
  for (const stream of [server.stdout, server.stderr])
    stream?.setEncoding('utf8').on('data', (chunk: string) => {
      said += chunk
    })
  const ended = new Promise<void>((resolve) => server.once('exit', () => resolve()))
  const stop = async (): Promise<void> => {
    if (server.exitCode === null) server.kill('SIGTERM')
    await ended
  }
  t.teardown(stop)
  while (!/Chancery serves at[\s\S]*docs\n/.test(said)) {
    if (server.exitCode !== null) throw new Error(`chancery serve ended:\n${said}`)
    await pause(50)
  }
  await pause(50)
  return { said: () => said, stop }
}

const ready = async (port: number): Promise<number> => {
  const { stdout } = await run('curl', [
    '-sk',
    '-o',
    '/dev/null',
    '-w',
    '%{http_code}',
    `https://127.0.0.1:${port}/readyz`,
  ])
  return Number(stdout)
}

const untilFile = async (path: string): Promise<void> => {
  for (let i = 0; i < 100; i += 1) {
    if (
      await readFile(path).then(
        () => true,
        () => false,
      )
    )
      return
    await pause(100)
  }
}
