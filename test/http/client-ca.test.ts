/** The CAs of clients: from a file that may change, or none at all. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { openClientCa, type TestClient } from '../helpers/clients.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { assertTools, output } from '../interop/tools.ts'
import { openClients } from './clients.ts'

await assertTools('openssl')
const { ca, folder, file, service, tie, open, ask } = await openClients(t)

slowTest('the file of CAs is read again when it changes, and stays as it was where it is not good', async (t) => {
  const next = openClientCa('Clients of tomorrow')
  const client = next.certify()
  const old = ca.certify()
  await tie('tomorrow', { fingerprint: client.fingerprint })
  await tie('today', { fingerprint: old.fingerprint })
  const until = async (shown: TestClient, code: string): Promise<string> => {
    for (const end = Date.now() + 10_000; ; await sleep(100)) {
      const found = await ask(t, shown)
      if (found === code || Date.now() > end) return found
    }
  }
  t.equal(await ask(t, client), 'auth.invalid')
  await writeFile(file, ca.pem + next.pem)
  t.equal(await until(client, 'in'), 'in')
  await writeFile(file, 'nonsense')
  await sleep(2_500)
  t.equal(await ask(t, client), 'in')
  await writeFile(file, next.pem)
  t.equal(await until(old, 'auth.invalid'), 'auth.invalid')
  await writeFile(file, ca.pem)
})

t.test('without a setting no certificate is asked for, and a file that is not good stops the start', async (t) => {
  const plain = await openTestService(t, {}, service)
  const client = ca.certify()
  await tie('unasked', { fingerprint: client.fingerprint })
  t.equal((await open(t, { client }, plain).request('GET', '/v1/authorities')).json.code, 'auth.missing')
  const answer = await open(t, { client }, plain).request('GET', '/v1/authorities', { token: service.adminToken })
  t.equal(answer.status, 200, 'nor is there anything that a token could contradict')
  const leaf = join(folder, 'leaf.pem')
  await writeFile(leaf, client.cert)
  const start = (path: string) => openTestService(t, { CHANCERY_CLIENT_CA: path }, service)
  await t.rejects(start(leaf), { message: 'Of the CAs of clients, certificate 1 is not that of a CA.' })
  const unsaid = join(folder, 'unsaid.pem')
  const made = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', join(folder, 'unsaid.key')]
  await output('openssl', ['req', '-x509', ...made, '-subj', '/CN=Old CA', '-out', unsaid])
  await t.rejects(start(unsaid), {
    message: 'Of the CAs of clients, certificate 1 has no key usage, which would say that it may sign certificates.',
  })
  await t.rejects(start(join(folder, 'none')), { message: /^The CAs of clients, .*none, cannot be read \(ENOENT\)\.$/ })
})
