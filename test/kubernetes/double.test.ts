/** The double itself: over TLS, with what goes wrong on order, and with cert-manager's part. */
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { Agent, request as httpsRequest } from 'node:https'
import { createInterface } from 'node:readline'

import t from 'tap'

import { request } from '../x509/build.ts'
import { recordedRequests } from './actors.ts'
import { type Cluster, openCluster, recordedRbac } from './cluster.ts'
import { condition, isTree, nameOf, type Tree, textAt, treeAt, treesAt, type Value, versionOf } from './values.ts'

const controller = 'chancery-system/chancery-controller'
const actor = 'system:serviceaccount:chancery-system:chancery-controller'
const issuer = { kind: 'ChanceryIssuer', name: 'default-ca' }
const requests = '/apis/cert-manager.io/v1/certificaterequests'

interface Reply {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly body: Value
}

/** A client of one account on one kept connection, as a controller is. */
const clientOf = (cluster: Cluster, account = controller) => {
  const agent = new Agent({ ca: cluster.ca, keepAlive: true })
  const headers = { authorization: `Bearer ${cluster.tokenOf(account)}`, 'user-agent': 'chancery/1' }
  const open = async (
    method: string,
    path: string,
    body?: Value,
    contentType = 'application/json',
  ): Promise<IncomingMessage> => {
    const sent = httpsRequest(`${cluster.url}${path}`, {
      method,
      agent,
      headers: { ...headers, 'content-type': contentType },
    })
    sent.end(body === undefined ? '' : JSON.stringify(body))
    const [response] = (await once(sent, 'response')) as [IncomingMessage]
    return response
  }
  return {
    call: async (...asked: Parameters<typeof open>): Promise<Reply> => {
      const response = await open(...asked)
      const parts: Buffer[] = []
      for await (const part of response) parts.push(part as Buffer)
      const text = Buffer.concat(parts).toString()
      return {
        status: response.statusCode ?? 0,
        headers: response.headers,
        body: response.headers['content-type'] === 'application/json' ? JSON.parse(text) : text,
      }
    },
    /** The next event of a watch, or undefined at its end; throws if the connection went. */
    watch: async (path: string) => {
      const response = await open('GET', `${path}${path.includes('?') ? '&' : '?'}watch=true`)
      const lines = createInterface({ input: response })[Symbol.asyncIterator]()
      return {
        next: async (): Promise<Tree | undefined> => {
          const { done, value } = await lines.next()
          return done === true ? undefined : (JSON.parse(String(value)) as Tree)
        },
      }
    },
    close: () => agent.destroy(),
  }
}

const ready = (name: string, namespace = 'team-a'): Tree => ({
  apiVersion: 'cert-manager.io/v1',
  kind: 'CertificateRequest',
  metadata: { name, namespace },
  status: {
    conditions: [
      {
        type: 'Ready',
        status: 'False',
        reason: 'Pending',
        message: 'waiting',
        lastTransitionTime: '2026-11-24T23:16:09Z',
      },
    ],
  },
})

const statusPath = (name: string): string =>
  `/apis/cert-manager.io/v1/namespaces/team-a/certificaterequests/${name}/status?fieldManager=chancery&force=true`
const applyType = 'application/apply-patch+yaml'

t.test('a client over TLS lists, watches from there, and sees every change once and in order', async (t) => {
  const cluster = await openCluster(t)
  const client = clientOf(cluster)
  t.teardown(() => client.close())
  await cluster.certManager.create({ name: 'before', issuer })
  const { body } = await client.call('GET', requests)
  t.strictSame(treesAt(body, 'items').map(nameOf), ['before'])
  const watch = await client.watch(`${requests}?resourceVersion=${versionOf(body)}`)
  const made = await cluster.certManager.create({ name: 'after', issuer, usages: ['server auth', 'digital signature'] })
  await cluster.certManager.approve(made)
  const applied = await client.call('PATCH', statusPath('after'), ready('after'), applyType)
  t.equal(applied.status, 200)
  await cluster.remove('certificaterequests', 'team-a', 'after')
  const types = ['ADDED', 'MODIFIED', 'MODIFIED', 'DELETED']
  const events = [await watch.next(), await watch.next(), await watch.next(), await watch.next()]
  t.strictSame(
    events.map((event) => event?.['type']),
    types,
  )
  t.strictSame(
    treesAt(events[2]?.['object'], 'status', 'conditions').map(({ type }) => type),
    ['Approved', 'Ready'],
  )
})

t.test('the log has every write of everybody but the administrator, and whether it changed something', async (t) => {
  const cluster = await openCluster(t)
  const client = clientOf(cluster)
  t.teardown(() => client.close())
  const made = await cluster.certManager.create({ name: 'web', issuer })
  for (const _ of ['first', 'again']) await client.call('PATCH', statusPath('web'), ready('web'), applyType)
  await client.call('PATCH', statusPath('absent'), ready('absent'), applyType)
  const uid = textAt(made, 'metadata', 'uid')
  const write = { actor, verb: 'patch', resource: 'certificaterequests', subresource: 'status', namespace: 'team-a' }
  t.strictSame(cluster.writes.slice(1), [
    { ...write, name: 'web', uid, status: 200, changed: true },
    { ...write, name: 'web', uid, status: 200, changed: false },
    { ...write, name: 'absent', uid: '', status: 404, changed: false },
  ])
  await cluster.apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'team-z' } })
  t.equal(cluster.writes.length, 4)
})

t.test('each fault is what it says, for whom and how often it says', async (t) => {
  const cluster = await openCluster(t)
  const client = clientOf(cluster)
  t.teardown(() => client.close())
  await cluster.certManager.create({ name: 'web', issuer })
  const when = { actor, subresource: 'status' }
  const apply = (message: string): Promise<Reply> => {
    const body = ready('web')
    for (const one of treesAt(body, 'status', 'conditions')) one['message'] = message
    return client.call('PATCH', statusPath('web'), body, applyType)
  }
  const message = (): string =>
    textAt(condition(cluster.get('certificaterequests', 'team-a', 'web'), 'Ready'), 'message')

  cluster.faults.add('drop', { when, times: 1 })
  await t.rejects(apply('dropped'), { code: 'ECONNRESET' })
  t.equal(message(), '', 'a dropped write did not happen')
  cluster.faults.add('lose', { when, times: 1 })
  await t.rejects(apply('lost'), { code: 'ECONNRESET' })
  t.equal(message(), 'lost', 'a write whose answer is lost has happened')

  const answers = { unavailable: 503, throttle: 429, error: 500, conflict: 409 } as const
  for (const [kind, status] of Object.entries(answers) as [keyof typeof answers, number][]) {
    const fault = cluster.faults.add(kind, { when, times: 1 })
    const refused = await apply(kind)
    t.equal(refused.status, status)
    t.equal(refused.headers['retry-after'], kind === 'throttle' ? '1' : undefined)
    t.equal(
      typeof refused.body,
      kind === 'throttle' ? 'string' : 'object',
      'priority and fairness answers in plain text',
    )
    t.equal(message(), 'lost')
    t.equal(fault.used(), 1)
  }
  const other = cluster.faults.add('unavailable', { when: { ...when, actor: 'somebody else' } })
  t.equal((await apply('delivered')).status, 200)
  t.equal(other.used(), 0)

  cluster.faults.add('hang', { when, times: 1 })
  const hanging = apply('never')
  cluster.faults.add('delay', { when, times: 1, seconds: 0.01 })
  t.equal((await apply('late')).status, 200)
  t.equal(message(), 'late')
  client.close()
  await t.rejects(hanging)
})

t.test('a partition cuts one actor off, and heals', async (t) => {
  const cluster = await openCluster(t)
  const [client, other] = [clientOf(cluster), clientOf(cluster, 'chancery-system/request-approver')]
  t.teardown(() => [client, other].forEach((one) => void one.close()))
  const watch = await client.watch(requests)
  const heal = cluster.faults.partition(actor)
  await t.rejects(client.call('GET', requests))
  t.equal((await other.call('GET', requests)).status, 200)
  await t.rejects(watch.next(), { code: 'ECONNRESET' })
  heal()
  t.equal((await client.call('GET', requests)).status, 200)
})

t.test('watches end, break, expire and stall on order', async (t) => {
  const cluster = await openCluster(t)
  const client = clientOf(cluster)
  t.teardown(() => client.close())
  const ended = await client.watch(requests)
  cluster.faults.closeWatches()
  t.equal(await ended.next(), undefined)

  const cut = await client.watch(requests)
  cluster.faults.closeWatches('cut')
  await t.rejects(cut.next(), { code: 'ECONNRESET' })

  const { body: before } = await client.call('GET', requests)
  const expired = await client.watch(`${requests}?resourceVersion=${versionOf(before)}`)
  await cluster.certManager.create({ name: 'seen', issuer })
  t.match(await expired.next(), { type: 'ADDED' })
  cluster.faults.expireWatches()
  t.match(await expired.next(), { type: 'ERROR', object: { code: 410, reason: 'Expired' } })
  t.equal(await expired.next(), undefined)
  const older = await client.watch(`${requests}?resourceVersion=${versionOf(before)}`)
  t.match(await older.next(), { type: 'ERROR', object: { code: 410 } })

  const { body: now } = await client.call('GET', requests)
  const stalled = await client.watch(`${requests}?resourceVersion=${versionOf(now)}`)
  const release = cluster.faults.holdWatches()
  await cluster.certManager.create({ name: 'held', issuer })
  let told = false
  const next = stalled.next().then((event) => {
    told = true
    return event
  })
  t.equal((await client.call('GET', requests)).status, 200)
  t.notOk(told)
  release()
  t.match(await next, { type: 'ADDED', object: { metadata: { name: 'held' } } })
})

t.test('cert-manager approves what it may, and what it could not once it may', async (t) => {
  const role = 'cert-manager-controller-approve:chancery-dev'
  const rbac = recordedRbac().filter((object) => nameOf(object) !== role)
  const cluster = await openCluster(t, { rbac })
  cluster.certManager.approveAll()
  await cluster.certManager.create({ name: 'web', issuer })
  for (const object of recordedRbac()) if (nameOf(object) === role) await cluster.apply(object)
  const approved = await cluster.until(
    'certificaterequests',
    { namespace: 'team-a', name: 'web' },
    (object) => condition(object, 'Approved') !== undefined,
  )
  t.equal(condition(approved, 'Approved')?.['status'], 'True')
})

t.test(
  'nobody decides on a request for a kind that there is not, and the reference is told as it stands',
  async (t) => {
    const cluster = await openCluster(t)
    for (const [name, kind, said] of [
      ['kindless', undefined, '{default-ca  chancery.dev}'],
      ['other', 'Issuer', '{default-ca Issuer chancery.dev}'],
    ] as const) {
      const made = await cluster.certManager.create({ name, issuer: { name: 'default-ca', ...(kind && { kind }) } })
      const message = `spec.issuerRef: Forbidden: referenced signer resource does not exist: ${said}`
      await t.rejects(cluster.certManager.approve(made), { message: new RegExp(message) }, said)
    }
  },
)

t.test('every request that cert-manager was recorded to make can be made again', async (t) => {
  const cluster = await openCluster(t)
  const recorded = recordedRequests()
  t.ok(recorded.length > 10)
  for (const sent of recorded) {
    const path = `/apis/cert-manager.io/v1/namespaces/${textAt(sent, 'metadata', 'namespace')}/certificaterequests`
    t.equal((await cluster.as(cluster.tokenOf('cert-manager/cert-manager')).request('POST', path, sent)).status, 201)
  }
})

t.test('a thousand requests reach a watch once each, and a list in pages has them all', async (t) => {
  const cluster = await openCluster(t)
  const client = clientOf(cluster)
  t.teardown(() => client.close())
  const watch = await client.watch(requests)
  const der = request()
  const names = Array.from({ length: 1000 }, (_, index) => `web-${String(index).padStart(4, '0')}`)
  for (const name of names) await cluster.certManager.create({ name, issuer, request: der })
  const seen: string[] = []
  while (seen.length < names.length) seen.push(nameOf((await watch.next())?.['object']))
  t.strictSame(seen, names)
  const listed: string[] = []
  let page = ''
  do {
    const { body } = await client.call('GET', `${requests}?limit=300&continue=${page}`)
    listed.push(...treesAt(body, 'items').map(nameOf))
    page = textAt(body, 'metadata', 'continue')
  } while (page !== '')
  t.strictSame(listed, names)
})

t.test('objects are made where all of them are, and changed where each is', async (t) => {
  const cluster = await openCluster(t)
  const leases = '/apis/coordination.k8s.io/v1/namespaces/chancery-system/leases'
  const lease = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name: 'one' }, spec: {} }
  const status = async (method: string, path: string): Promise<number> =>
    (await cluster.as().request(method, path, lease)).status
  t.equal(await status('POST', `${leases}/one`), 405)
  t.equal(await status('POST', leases), 201)
  t.equal(await status('PUT', leases), 405)
})

t.test('an account asks for a token for an audience, if it may', async (t) => {
  const cluster = await openCluster(t)
  const client = clientOf(cluster)
  t.teardown(() => client.close())
  const path = '/api/v1/namespaces/chancery-system/serviceaccounts/chancery-controller/token'
  const wanted = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: { audiences: ['chancery'] } }
  t.equal((await client.call('POST', path, wanted)).status, 403)
  const { status, body } = await cluster.as().request('POST', path, wanted)
  t.equal(status, 201)
  const token = textAt(body, 'status', 'token')
  const claims = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString())
  t.match(claims, { iss: cluster.url, aud: ['chancery'], sub: actor })
  t.ok(isTree(treeAt(body, 'spec')))
})
