/** An issuer is replaced under load, by two replicas at once: no caller notices. */
import { X509Certificate } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { Agent, request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

import t from 'tap'

import { parseCertificate } from '../../src/x509/certificate.ts'
import { parseCrl } from '../../src/x509/crl.ts'
import { parsePem } from '../../src/x509/pem.ts'
import { faultsInRecords } from '../crash/checker.ts'
import { openLoad, type Target } from '../crash/load.ts'
import { named, openTestRoot } from '../helpers/ceremony.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { type Instance, startInstance } from '../helpers/instance.ts'
import { freePort } from '../helpers/port.ts'
import { slowTest } from '../helpers/slow.ts'

const clients = 32
t.setTimeout(300_000)

slowTest(
  'a rotation under load, on two replicas: every request is answered, and every certificate chains',
  async (t) => {
    const database = await openTestDatabase({ teardown: () => {} })
    const data = await mkdtemp(join(tmpdir(), 'chancery-rotation-'))
    const ports = await Promise.all(Array.from({ length: 4 }, freePort))
    const instances = [0, 1].map(
      (i) => () =>
        startInstance({
          data,
          port: ports[i] as number,
          publicPort: ports[i + 2] as number,
          servingUrl: database.servingUrl,
          ownerUrl: database.ownerUrl,
          // As it is by default: a signature on a loaded machine may take longer than 100 ms, and this test is not about that.
          env: { CHANCERY_STAGING_TIME: '0s', CHANCERY_SIGNING_DEADLINE: '1500ms', CHANCERY_REQUEST_DEADLINE: '5s' },
        }),
    )
    const running: Instance[] = []
    for (const start of instances) {
      const instance = start()
      running.push(instance)
      await instance.ready()
    }
    t.teardown(async () => {
      for (const instance of running) instance.signal('SIGTERM')
      await Promise.all(running.map(({ exited }) => exited))
      await database.close()
      await rm(data, { recursive: true, force: true })
    })
    const ca = await readFile(join(data, 'root.pem'), 'utf8')
    const token = (await readFile(join(data, 'admin.token'), 'utf8')).trim()
    const targets: readonly Target[] = [0, 1].map((i) => ({ port: ports[i] as number, ca, token }))
    const [one, two] = targets as [Target, Target]

    const root = openTestRoot('Next Root')
    const load = openLoad(targets, clients)
    t.ok(await load.answers(100, 60_000))
    const ask = { name: 'default-2027', authority: 'default', subject: named('Issuing 2027') }
    const { csr } = await call(one, 'POST', '/v1/issuer-requests', ask)
    const next = await call(one, 'PUT', '/v1/issuers/default-2027', { chain: root.certify(csr) + root.pem })
    await pause(500)
    await call(one, 'POST', '/v1/issuers/default-2027/moves', { move: 'activate' })
    await pause(3_000)
    const settled = load.answered.length
    t.ok(await load.answers(100, 60_000))
    await load.stop()

    t.same(load.failures, [])
    t.same([...load.retries], [], 'nobody had to ask twice')
    const [old] = (await call(two, 'GET', '/v1/authorities/default/bundle')).items
    const issuers = [old.certificate, next.certificate].map((pem: string) => new X509Certificate(pem))
    const signers = load.answered.map(({ certificate }) => {
      const leaf = new X509Certificate(certificate)
      return issuers.findIndex((issuer) => leaf.checkIssued(issuer) && leaf.verify(issuer.publicKey))
    })
    t.notOk(signers.includes(-1), 'every certificate chains')
    t.ok(signers.filter((signer) => signer === 0).length > 50)
    t.ok(signers.filter((signer) => signer === 1).length > 50)
    t.same([...new Set(signers.slice(settled))], [1], 'after three seconds both replicas sign with the new one')
    t.ok(issuers[1]?.verify(new X509Certificate(root.pem).publicKey))
    t.ok(issuers[0]?.verify(new X509Certificate(ca).publicKey))

    for (const target of targets) {
      const { items } = await call(target, 'GET', '/v1/authorities/default/bundle')
      t.match(items, [{ issuers: ['default'] }, { issuers: ['default-2027'] }], 'the bundle carries both')
      const { items: states } = await call(target, 'GET', '/v1/issuers')
      t.match(
        states.filter(({ authority }: { authority: string }) => authority === 'default'),
        [{ state: 'retiring' }, { state: 'active' }],
      )
    }
    // The old one signs no certificate any more, but tells of those that it has signed for as long as they live.
    const revoked = load.answered.filter((_, i) => signers[i] === 0).slice(0, 20)
    for (const { serial } of revoked)
      await call(two, 'POST', `/v1/certificates/${serial}/revocation`, { reason: 'superseded' })
    const isListed = async ({ serial, certificate }: (typeof revoked)[number]): Promise<boolean> => {
      const { crlUrls } = parseCertificate(parsePem(certificate, 'CERTIFICATE')).facts
      const path = new URL(crlUrls[0] ?? '').pathname
      const answer = await fetch(`http://127.0.0.1:${ports[2]}${path}`)
      const list = parseCrl(Buffer.from(await answer.arrayBuffer()))
      return list.issuer.equals(oldName) && list.revoked.some((entry) => entry.serial.toString('hex') === serial)
    }
    const oldName = parseCertificate(issuers[0]?.raw as Buffer).facts.subjectDer
    let listed: readonly boolean[] = []
    for (const deadline = Date.now() + 60_000; Date.now() < deadline; await pause(500)) {
      listed = await Promise.all(revoked.map(isListed))
      if (listed.every(Boolean)) break
    }
    t.equal(listed.filter(Boolean).length, 20, 'the old issuer still publishes its CRL')
    t.same(await faultsInRecords(database.ownerUrl, load.answered), [])
    t.comment(`answered ${load.answered.length}`)
  },
)

// biome-ignore lint/suspicious/noExplicitAny: the shape is what the test asserts.
const call = ({ port, ca, token }: Target, method: string, path: string, body?: object): Promise<any> =>
  new Promise((resolve, reject) => {
    const payload = body === undefined ? '' : JSON.stringify(body)
    const headers = {
      accept: 'application/json',
      authorization: `Bearer ${token}`,
      ...(body && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) }),
    }
    const agent = new Agent({ keepAlive: false })
    const sent = request({ host: '127.0.0.1', port, ca, agent, method, path, headers }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk
      })
      response.on('end', () => {
        if ((response.statusCode ?? 0) < 300) resolve(JSON.parse(text))
        else reject(new Error(`${method} ${path}: ${text}`))
      })
    })
    sent.on('error', reject)
    sent.end(payload)
  })
