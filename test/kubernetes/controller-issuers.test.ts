/** Issuers of the cluster: as whom the controller asks, whom it shows its own token to, and profiles of every kind. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { audience } from '../helpers/issuer.ts'
import { slowTest } from '../helpers/slow.ts'
import { recordedRequests } from './actors.ts'
import { openFront } from './front.ts'
import { issuerIs, notesOf, openRunning, queued, serialOf, until } from './running.ts'
import { condition, nameOf, namespaceOf, put, type Tree, textAt, treeAt } from './values.ts'

slowTest('the controller asks by its own service account, of the servers that its settings name alone', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-controller-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const file = join(folder, 'token')
  const running = await openRunning(t, { idle: true })
  const { cluster, service, front } = running
  const made = await service.request('PUT', '/v1/identity-providers/cluster', {
    headers: { 'if-none-match': '*' },
    body: {
      ...{ name: 'cluster', issuer: cluster.url, keys: { discovery: true, ca: cluster.ca } },
      ...{ algorithms: ['RS256'], audience, lifetime: '2h' },
      mappings: [
        {
          id: 'controller',
          claims: {
            '/kubernetes.io/namespace': 'chancery-system',
            '/kubernetes.io/serviceaccount/name': 'chancery-controller',
          },
          principal: 'cluster-1:controller',
          grants: [{ profiles: ['cluster'], onBehalfOf: { required: true } }],
        },
      ],
    },
  })
  t.equal(made.status, 201, made.text)
  const token = (audiences: readonly string[]): Promise<void> =>
    writeFile(file, cluster.tokenOf('chancery-system/chancery-controller', { audiences }))
  await token([audience])
  const aside = await openFront(t, service)
  await running.start({ servers: [front, aside].map(({ url }) => ({ url, token: { audience, file } })) })
  const auth = { serviceAccount: { audiences: [audience] } }
  await running.issuer({ spec: { auth } })
  await running.ask('own-1')
  const done = await running.ended('own-1', 'Issued')
  const { json } = await service.request('GET', `/v1/certificates/${serialOf(done)}`)
  t.match(json, { principal: 'cluster-1:controller', origin: { namespace: 'team-a' } })

  // Rules of a profile for who has asked would not hold.
  await running.issuer({ name: 'silent', spec: { auth, onBehalfOf: false } })
  t.match(await issuerIs(running, 'False', 'silent'), { reason: 'Failed', message: /onBehalfOf cannot be false/ })
  // It is asked again and again.
  const spec = { auth, url: aside.url, onBehalfOf: false }
  await running.issuer({ kind: 'ChanceryClusterIssuer', name: 'silent', spec })
  const cluster1 = await cluster.until('chanceryclusterissuers', { name: 'silent' }, isLookedAt)
  t.match(textAt(condition(cluster1 ?? {}, 'Ready'), 'message'), /origin\.required/, 'one of the cluster may')
  const asked = front.calls()

  // Another server, though it is the same one: nobody has said that it may see the token.
  await running.issuer({ name: 'elsewhere', spec: { auth, url: service.url } })
  t.match(await issuerIs(running, 'False', 'elsewhere'), { reason: 'Failed', message: /nowhere \(servers\)/ })
  await running.issuer({ name: 'by-secret', spec: { url: service.url } })
  t.match(await issuerIs(running, 'False', 'by-secret'), { reason: 'Failed', message: /nowhere \(servers\)/ })
  t.equal(front.calls(), asked, 'nor is a token of a Secret shown there')
  await running.issuer({ name: 'other', spec: { auth: { serviceAccount: { audiences: ['https://other.example'] } } } })
  t.match(await issuerIs(running, 'False', 'other'), { reason: 'Failed', message: /for the audience/ })

  // A token that Chancery does not take says so, and the next one in the file is taken without a restart.
  await token(['https://other.example'])
  await running.issuer({ spec: { auth, onBehalfOf: true } })
  t.match(await issuerIs(running, 'False'), { reason: 'Failed', message: /auth\.audience/ })
  await token([audience])
  await issuerIs(running, 'True')
})

slowTest('requests of cert-manager without usages are issued by the seeded profile server', async (t) => {
  const running = await openRunning(t)
  const { service, cluster } = running
  const { json } = await service.request('GET', '/v1/profiles/server')
  const names = { ...json.document.names, dns: { allow: ['**.svc', '**.org'] } }
  const body = { ...json.document, name: 'plain', names }
  await service.request('PUT', '/v1/profiles/plain', { headers: { 'if-none-match': '*' }, body })
  await service.request('POST', '/v1/grants', {
    body: { principal: 'cluster', role: 'requester', profiles: ['plain'], onBehalfOf: {} },
  })
  await running.issuer({ kind: 'ChanceryClusterIssuer', name: 'plain', spec: { profile: 'plain' } })
  const plain = recordedRequests().filter((request) => {
    const { usages, isCA } = treeAt(request, 'spec')
    return usages === undefined && isCA !== true
  })
  t.ok(plain.length >= 9, `${plain.length} of them`)
  for (const request of plain) {
    put(request, ['spec', 'issuerRef'], { group: 'chancery.dev', kind: 'ChanceryClusterIssuer', name: 'plain' })
    const made = await cluster.apply(request as Tree)
    await cluster.certManager.approve(made)
  }
  const isIssued = (request: Tree): boolean =>
    textAt(cluster.get('certificaterequests', namespaceOf(request), nameOf(request)), 'status', 'certificate') !== ''
  await until(() => plain.every(isIssued))
  t.equal(new Set(running.front.issued).size, plain.length)
})

slowTest('an issuer that was ready is looked at again by itself', async (t) => {
  const running = await openRunning(t, { settings: { recheck: 0.2 } })
  await running.issuer()
  await issuerIs(running, 'True')
  running.front.to(undefined)
  t.match(await issuerIs(running, 'False'), { reason: 'Pending' })
  running.front.to(running.service.url)
  await issuerIs(running, 'True')
})

t.test('whoever has made an issuer is told where its status cannot be written', async (t) => {
  const running = await openRunning(t)
  running.cluster.faults.add('large', { when: { plural: 'chanceryissuers', verb: 'patch' }, times: 1 })
  await running.issuer()
  await until(() => notesOf(running, 'StatusRefused').length === 1)
  t.match(notesOf(running, 'StatusRefused'), [/does not take its status: etcdserver: request is too large$/])
})

slowTest('a token that is taken back, and one that takes its place in the Secret', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  await running.ask('before-1')
  await running.ended('before-1', 'Issued')
  const { json } = await running.service.request('GET', '/v1/tokens?principal=cluster')
  await running.service.request('DELETE', `/v1/tokens/${json.items[0].id}`)
  await running.ask('after-1')
  const broken = await issuerIs(running, 'False')
  t.match(broken, { reason: 'Failed', message: /auth\./ })
  const fresh = await running.service.request('POST', '/v1/tokens', { body: { principal: 'cluster', label: 'new' } })
  await running.cluster.apply({
    ...{ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'chancery', namespace: 'team-a' } },
    data: { token: Buffer.from(fresh.json.secret).toString('base64') },
  })
  await running.ended('after-1', 'Issued')
})

slowTest('a profile that there is not, and a url that is none, are said of the issuer', async (t) => {
  const running = await openRunning(t)
  await running.issuer({ name: 'absent', spec: { profile: 'absent' } })
  await running.issuer({ name: 'foreign', spec: { caBundle: Buffer.from('junk').toString('base64') } })
  for (const [name, says] of [
    ['absent', /profile|auth\.forbidden/],
    ['foreign', /caBundle/],
  ] as const) {
    const issuer = await issuerIs(running, 'False', name)
    t.match(issuer, { reason: 'Failed', message: says })
  }
})

slowTest('nothing leaves a Secret that is not a token of Chancery', async (t) => {
  const running = await openRunning(t)
  const put = (name: string, value: string) =>
    running.cluster.apply({
      ...{ apiVersion: 'v1', kind: 'Secret', metadata: { name, namespace: 'team-a' } },
      data: { password: Buffer.from(value).toString('base64') },
    })
  await put('database', 'hunter2')
  // A digit of it is wrong: a token that was torn is none either.
  await put('torn', `${running.token.slice(0, -1)}${running.token.endsWith('A') ? 'B' : 'A'}`)
  for (const name of ['database', 'torn']) {
    await running.issuer({ name, spec: { auth: { tokenSecretRef: { name, key: 'password' } } } })
    t.match(await issuerIs(running, 'False', name), { reason: 'Failed', message: /holds no token of Chancery/ })
  }
  t.same(running.front.calls(), 0, 'nobody was asked anything')
})

slowTest('what only its owners can mend is counted apart, and nothing of the operator’s is', async (t) => {
  const running = await openRunning(t, { idle: true })
  const { front, cluster, service } = running
  await running.start({ servers: [{ url: front.url }, { url: service.url, caFile: 'nowhere.crt' }] })
  const waits = async (later: number, left: number, resource: string): Promise<void> => {
    while ((await queued(running, 'later', resource)) !== later || (await queued(running, 'left', resource)) !== left)
      await sleep(5)
    t.pass(`${resource}: ${later} later, ${left} left`)
  }
  const issuer = (name: string) => ({ issuer: { kind: 'ChanceryIssuer', name } })
  await running.issuer({ name: 'mistyped', spec: { profile: 'absent' } })
  await running.issuer({ name: 'elsewhere', spec: { url: 'https://nobody.invalid' } })
  await running.ask('one-1', issuer('mistyped'))
  await running.ask('two-1', issuer('absent'))
  await running.ask('three-1', { issuer: { kind: 'ChanceryClusterIssuer', name: 'absent' } })
  await running.issuer({ name: 'distrusting', spec: { caBundle: Buffer.from(cluster.ca).toString('base64') } })
  await running.issuer({ name: 'trusting', spec: { caBundle: undefined } })
  await running.issuer({ name: 'blind', spec: { url: service.url, caBundle: undefined } })
  await waits(2, 3, 'chanceryissuers')
  await waits(0, 3, 'certificaterequests')

  front.to(undefined)
  await running.issuer()
  await issuerIs(running, 'False')
  const shared = { kind: 'ChanceryClusterIssuer', name: 'shared' }
  await running.issuer({ ...shared, spec: { profile: 'absent' } })
  await running.ask('four-1', { issuer: shared })
  await cluster.until('chanceryclusterissuers', { name: 'shared' }, isLookedAt)
  await waits(5, 2, 'chanceryissuers')
  await waits(2, 2, 'certificaterequests')
})

const isLookedAt = (issuer: Tree | undefined): boolean => condition(issuer ?? {}, 'Ready') !== undefined
