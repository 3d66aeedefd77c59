import { X509Certificate } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { exitCodes } from '../../src/lib/failure.ts'
import { openClientCa, spiffe } from '../helpers/clients.ts'
import { chanceryFor } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'

const service = await openTestService(t)
const folder = await mkdtemp(join(tmpdir(), 'chancery-credential-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))

const chancery = chanceryFor(service)

const write = async (name: string, text: string): Promise<string> => {
  const path = join(folder, name)
  await writeFile(path, text)
  return path
}

slowTest('client certificates are tied to a principal by a file, a fingerprint or a SPIFFE id', async (t) => {
  await service.request('POST', '/v1/principals', { body: { name: 'clients' } })
  const ca = openClientCa()
  const one = ca.certify(spiffe('spiffe://example.com/one'))
  const file = await write('one.pem', one.cert + ca.pem)
  const tie = (...args: string[]) => chancery(['credential', 'create', 'clients', '--label', 'test', ...args])
  const made = await tie('--certificate', file)
  t.match(
    made.out,
    new RegExp(`^the certificate ${one.fingerprint} is clients now \\(credential [-0-9a-f]{36}\\)\\.\n$`),
  )
  const printed = new X509Certificate(one.cert).fingerprint256
  t.match(
    (await tie('--fingerprint', `sha256 Fingerprint=${printed}`)).out,
    / is clients already /,
    'as openssl has it',
  )
  t.match((await tie('--certificate', file, '--by', 'spiffe')).out, /for spiffe:\/\/example\.com\/one is clients now/)
  t.match((await tie('--spiffe-id', 'spiffe://example.com/one')).out, / is clients already /)
  const named = await write('named.pem', ca.certify().cert)
  t.match((await tie('--certificate', named, '--by', 'subject')).out, /of CN=client by CN=Clients is clients now/)
  const listed = (await chancery(['credential', 'list', '--principal', 'clients'])).out
  t.match(listed, /whoever has a certificate of CN=client by CN=Clients/)
  const [row] = JSON.parse((await chancery(['credential', 'list', '--principal', 'clients', '--json'])).out)
  t.match((await chancery(['credential', 'revoke', row.id])).out, /stops working within two seconds/)
  for (const [args, reason] of [
    [[], /exactly one of/],
    [['--certificate', file, '--spiffe-id', 'spiffe://example.com/one'], /exactly one of/],
    [['--certificate', file, '--by', 'toString'], /--by is/],
    [['--certificate', named, '--by', 'spiffe'], /one URI/],
    [['--certificate', join(folder, 'none')], /ENOENT/],
  ] as const) {
    const { code, err } = await tie(...args)
    t.equal(code, exitCodes.usage)
    t.match(err, reason)
  }
})
