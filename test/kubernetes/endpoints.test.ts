/** Where an issuer sends its requests: which token is shown to whom, trusting what, and what is said where nothing may be. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { openApi } from '../../src/kubernetes/api/client.ts'
import type { Issuer, IssuerSpec } from '../../src/kubernetes/api/objects.ts'
import { openPlaces, serverNamed } from '../../src/kubernetes/reconcile/endpoints.ts'
import type { ServerSettings } from '../../src/kubernetes/settings.ts'
import { openClientCa, serverAuth } from '../helpers/clients.ts'
import { ip } from '../x509/build.ts'
import { openCluster } from './cluster.ts'
import { issuerOf } from './objects.ts'
import { rights } from './running.ts'

const ca = openClientCa('HTTPS of Chancery')
const { cert, key } = ca.certify({ usage: serverAuth, names: [ip('7f000001')] })
const caBundle = Buffer.from(ca.pem).toString('base64')
const { signal } = new AbortController()
/** What stands for a token here. */
const isToken = (text: string): boolean => text.startsWith('chy_')

type Servers = (server: { readonly url: string; readonly folder: string }) => readonly ServerSettings[]

const open = async (t: Parameters<typeof openCluster>[0], servers: Servers = () => []) => {
  const cluster = await openCluster(t, { rbac: rights, namespaces: ['default', 'team-a', 'team-b', 'chancery-system'] })
  const folder = mkdtempSync(join(tmpdir(), 'places-'))
  const shown: string[] = []
  const server = createServer({ cert, key }, (request, response) => {
    shown.push(request.headers.authorization ?? '')
    response.writeHead(503).end()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  const token = cluster.tokenOf('chancery-system/chancery-controller')
  const api = openApi(async () => ({
    ...{ server: cluster.url, headers: { authorization: `Bearer ${token}` }, tls: { ca: cluster.ca } },
  }))
  t.teardown(async () => {
    api.close()
    server.close()
    server.closeAllConnections()
    rmSync(folder, { recursive: true })
  })
  const time = { now: 0 }
  const places = openPlaces({
    ...{ api, isToken, secretNamespace: 'chancery-system', now: () => time.now, servers: servers({ url, folder }) },
  })
  /** What Chancery is shown, or why nothing is. */
  const ask = async (issuer: Issuer): Promise<string> => {
    const place = await places.of(issuer, signal)
    if ('kind' in place) return place.kind === 'problem' ? place.problem.code : `${place.kind}: ${place.message}`
    const { length } = shown
    const fault = await place.probe({ profile: 'x' }, signal)
    if (shown.length === length) return fault?.kind ?? ''
    return shown.at(-1) ?? ''
  }
  const secret = (namespace: string, name: string, data: Readonly<Record<string, string>>) =>
    cluster.apply({
      ...{ apiVersion: 'v1', kind: 'Secret', metadata: { name, namespace } },
      data: Object.fromEntries(
        Object.entries(data).map(([name, text]) => [name, Buffer.from(text).toString('base64')]),
      ),
    })
  const reads = (): number => cluster.requests.filter(({ plural }) => plural === 'secrets').length
  return { cluster, folder, url, time, places, ask, secret, reads }
}

/** Of team-a, or of the cluster. */
const named = (spec: Partial<IssuerSpec>, { of = 'team-a', uid = '7f3c' } = {}): Issuer => {
  const { metadata, ...more } = issuerOf(spec)
  const { namespace: _, ...rest } = metadata
  return { ...more, metadata: { ...rest, uid, ...(of !== '' && { namespace: of }) } }
}

t.test('the token of a Secret is shown, of the namespace of the issuer or of that of the controller', async (t) => {
  const { url, ask, secret } = await open(t)
  await secret('team-a', 'mine', { token: 'chy_a\n', other: 'chy_b' })
  await secret('chancery-system', 'mine', { token: 'chy_c' })
  const spec = (key?: string) => ({
    ...{ url, caBundle, auth: { tokenSecretRef: { name: 'mine', ...(key !== undefined && { key }) } } },
  })
  t.equal(await ask(named(spec())), 'Bearer chy_a')
  t.equal(await ask(named(spec('other'))), 'Bearer chy_b')
  t.equal(await ask(named({ ...spec(), url: `${url}/` })), 'Bearer chy_a')
  t.equal(await ask(named(spec(), { of: '' })), 'Bearer chy_c')
  t.equal(await ask(named({ ...spec(), onBehalfOf: false })), 'Bearer chy_a', 'it is its own')
})

t.test('what a Secret lacks is said where it is, and of one of the controller, nothing but that', async (t) => {
  const { url, ask, secret, cluster } = await open(t)
  for (const namespace of ['team-a', 'chancery-system']) await secret(namespace, 'mine', { password: 'hunter2' })
  const cases = [
    [{ name: 'none' }, 'Secret team-a/none does not exist'],
    [{ name: 'mine' }, 'Secret team-a/mine has no key token'],
    [{ name: 'mine', key: 'constructor' }, 'Secret team-a/mine has no key constructor'],
    [{ name: 'mine', key: 'password' }, 'Secret team-a/mine, key password, holds no token of Chancery'],
  ] as const
  const spec = (tokenSecretRef: { readonly name: string }) => ({ url, caBundle, auth: { tokenSecretRef } })
  for (const [ref, says] of cases) {
    t.equal(await ask(named(spec(ref))), `misconfigured: ${says}`)
    t.equal(
      await ask(named(spec(ref), { of: '' })),
      'misconfigured: spec.auth.tokenSecretRef names no token of Chancery',
    )
  }
  await cluster.apply({ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'empty', namespace: 'team-a' } })
  t.match(await ask(named(spec({ name: 'empty' }))), /has no key token$/)
  const forbidden = named(spec({ name: 'mine' }), { of: 'team-b' })
  t.equal(await ask(forbidden), 'misconfigured: Secret team-b/mine may not be read by the controller')
})

t.test('a Secret that cannot be read now is a matter of time; nobody waits for one after the end', async (t) => {
  const { url, ask, places, cluster } = await open(t)
  const issuer = named({ url, caBundle, auth: { tokenSecretRef: { name: 'mine' } } })
  cluster.faults.add('unavailable', { when: { plural: 'secrets' } })
  t.equal(await ask(issuer), 'unreachable: the Secret with the token cannot be read now')
  const ended = new Error('it has ended')
  await t.rejects(places.of(issuer, AbortSignal.abort(ended)), ended)
})

t.test(
  'what was read is good for half a minute, for one issuer as it is, and until it is to be forgotten',
  async (t) => {
    const { url, time, places, secret, reads } = await open(t)
    await secret('team-a', 'mine', { token: 'chy_a' })
    const spec = { url, caBundle, auth: { tokenSecretRef: { name: 'mine' } } }
    const first = await places.of(named(spec), signal)
    time.now = 29_999
    t.equal(await places.of(named(spec), signal), first)
    t.equal(reads(), 1)
    time.now = 30_000
    const second = await places.of(named(spec), signal)
    t.not(second, first)
    time.now = 59_999
    t.equal(await places.of(named(spec), signal), second)
    t.not(await places.of(named(spec, { uid: 'another' }), signal), second)
    t.equal(await places.of(named(spec), signal), second, 'each has its own')
    t.equal(reads(), 3)
    places.forget(named(spec))
    const third = await places.of(named(spec), signal)
    t.not(third, second)
    const changed = await places.of(named({ ...spec, profile: 'changed' }), signal)
    t.not(changed, third)
    t.equal(await places.of(named({ ...spec, profile: 'changed' }), signal), changed)
    t.equal(reads(), 5)
  },
)

t.test('of a thousand and more issuers the latest are known', async (t) => {
  const { url, folder, time, places } = await open(t, ({ url, folder }) => [
    { url, token: { audience: 'chancery', file: join(folder, 'token') } },
  ])
  writeFileSync(join(folder, 'token'), 'chy_own')
  const spec = { url, caBundle, auth: { serviceAccount: { audiences: ['chancery'] } } }
  const of = (i: number) => places.of(named(spec, { uid: `${i}` }), signal)
  const first = await of(0)
  const second = await of(1)
  const next = await of(2)
  for (let i = 3; i < 1_024; i += 1) await of(i)
  t.equal(await of(0), first)
  const anew = () => places.of(named({ ...spec, profile: 'anew' }, { uid: '0' }), signal)
  const third = await anew()
  const last = await of(1_024)
  t.equal(await anew(), third)
  t.equal(await of(2), next)
  t.not(await of(1), second, 'the oldest has gone')
  t.equal(await of(1_024), last)
  time.now = 29_999
  t.equal(await of(1_024), last)
})

t.test('nothing is asked of what is no server, nor of one that the settings do not name', async (t) => {
  const { ask, url } = await open(t)
  const auth = { tokenSecretRef: { name: 'mine' } }
  for (const bad of [
    ...['http://chancery.test', 'https://chancery.test/v1', 'https://chancery.test?x', 'https://me@chancery.test'],
    ...['https://', 'https://chancery test', 'https://chancery.test:99999', 'x https://chancery.test', ''],
  ])
    t.equal(
      await ask(named({ url: bad, auth })),
      `misconfigured: spec.url ${JSON.stringify(bad)} is not like https://host:port`,
    )
  const long = `http://${'a'.repeat(1_000)}`
  t.equal(
    await ask(named({ url: long, auth })),
    `misconfigured: spec.url "${long.slice(0, 256)}" is not like https://host:port`,
  )
  const strict = await open(t, () => [{ url: 'https://CHANCERY.test:443/' }])
  t.equal(
    await strict.ask(named({ url, auth })),
    `misconfigured: the settings of the controller name ${url} nowhere (servers)`,
  )
  const wordy = `https://${'a'.repeat(300)}.test`
  t.match(await strict.ask(named({ url: wordy, auth })), ` name ${wordy.slice(0, 256)} nowhere`)
  t.match(await strict.ask(named({ url: 'https://chancery.test', auth })), /Secret team-a\/mine does not exist/)
})

t.test('a server is the one of its host and port', async (t) => {
  const servers = [{ url: 'https://a.test' }, { url: 'https://a.test:8443' }]
  t.equal(serverNamed(servers, 'https://A.test:443/'), servers[0])
  t.equal(serverNamed(servers, 'https://a.test:8443'), servers[1])
  for (const url of ['http://a.test', 'https://b.test', 'a.test', ''])
    t.equal(serverNamed(servers, url), undefined, url)
})

t.test('an issuer says one way to show who asks', async (t) => {
  const { ask, url } = await open(t)
  const both = { serviceAccount: { audiences: ['chancery'] }, tokenSecretRef: { name: 'mine' } }
  for (const auth of [{}, both])
    t.equal(
      await ask(named({ url, caBundle, auth })),
      'misconfigured: spec.auth must have one of serviceAccount and tokenSecretRef',
    )
})

t.test('the controller’s own token is shown where its settings say so, for the one audience', async (t) => {
  const { ask, url, folder, time } = await open(t, ({ url, folder }) => [
    { url: 'https://tokenless.test' },
    { url, token: { audience: 'chancery', file: join(folder, 'token') } },
  ])
  const file = join(folder, 'token')
  const own = (...audiences: readonly string[]) => ({ url, caBundle, auth: { serviceAccount: { audiences } } })
  t.equal(await ask(named(own('chancery'))), 'misconfigured: the token of the controller cannot be read (ENOENT)')
  for (const text of ['', 'a b', 'a\nb', 'chy_ä', 'a'.repeat(16_385)]) {
    writeFileSync(file, text)
    t.match(await ask(named(own('chancery'))), /the file for the token of the controller holds none$/, text.slice(0, 5))
  }
  const longest = 'a'.repeat(8_000)
  for (const text of ['chy_own', longest]) {
    writeFileSync(file, `\n${text}\n`)
    time.now += 30_000
    t.equal(await ask(named(own('chancery'))), `Bearer ${text}`)
  }
  for (const audiences of [[], ['other'], ['chancery', 'other'], ['chancery', 'chancery']])
    t.match(await ask(named(own(...audiences))), /is for the audience chancery, and no other$/, audiences.join())
  t.match(await ask(named({ ...own('chancery'), url: 'https://tokenless.test' })), /name no token of its own for this/)
  const anybody = { ...own('chancery'), onBehalfOf: false }
  t.match(await ask(named(anybody)), /spec\.onBehalfOf cannot be false of an issuer of a namespace/)
  t.equal(await ask(named(anybody, { of: '' })), `Bearer ${longest}`)
})

t.test('the controller’s own token is shown to whom its settings trust, whatever the issuer says', async (t) => {
  const strange = Buffer.from(openClientCa('Somebody else').pem).toString('base64')
  const { ask, url, folder, secret } = await open(t, ({ url, folder }) => [
    { url, caFile: join(folder, 'ca.pem'), token: { audience: 'chancery', file: join(folder, 'token') } },
  ])
  writeFileSync(join(folder, 'token'), 'chy_own')
  await secret('team-a', 'mine', { token: 'chy_a' })
  const own = { serviceAccount: { audiences: ['chancery'] } }
  const mine = { tokenSecretRef: { name: 'mine' } }
  t.match(await ask(named({ url, auth: own })), /^misconfigured: what to trust cannot be read: ENOENT/)
  writeFileSync(join(folder, 'ca.pem'), 'nothing')
  t.equal(
    await ask(named({ url, auth: own })),
    `misconfigured: caFile ${join(folder, 'ca.pem')} holds no certificate in PEM`,
  )
  writeFileSync(join(folder, 'ca.pem'), ca.pem)
  t.equal(await ask(named({ url, auth: own, caBundle: strange })), 'Bearer chy_own')
  t.equal(
    await ask(named({ url, auth: mine, caBundle: strange })),
    'misconfigured',
    'its own it shows to whom it likes',
  )
  t.equal(await ask(named({ url, auth: mine })), 'Bearer chy_a')
})

t.test('without a word about trust it is that of the system; what is none is said, as a matter of trust', async (t) => {
  const { ask, url, places, secret } = await open(t)
  await secret('team-a', 'mine', { token: 'chy_a' })
  const spec = { url, auth: { tokenSecretRef: { name: 'mine' } } }
  t.equal(await ask(named(spec)), 'misconfigured', 'our server is not of the system')
  const bundle = (text: string) => places.of(named({ ...spec, caBundle: Buffer.from(text).toString('base64') }), signal)
  const torn = ca.pem.slice(0, 200)
  const fault = (what: string) => ({ kind: 'misconfigured', about: 'trust', message: `spec.caBundle ${what}` })
  for (const text of ['', 'nothing', key.toString()])
    t.same(await bundle(text), fault('holds no certificate in PEM'), text)
  // Nothing of one that is torn would be trusted, nor of what is behind it.
  for (const [text, number] of [
    [torn, 1],
    [`${torn}\n${ca.pem}`, 1],
    ['-----BEGIN CERTIFICATE-----', 1],
    [`${ca.pem}${torn}`, 2],
    [`${ca.pem}${ca.pem.slice(200)}${ca.pem}`, 2],
    [`${ca.pem}${ca.pem}${torn}\n${ca.pem}`, 3],
  ] as const)
    t.same(
      await bundle(text),
      fault(
        `holds a certificate that cannot be read, as when it is torn or the next begins in its last line: number ${number}`,
      ),
    )
  for (const text of [`Ours:\n${ca.pem}\n# Theirs\n${ca.pem}# The end`, `\ufeff${ca.pem}`]) {
    t.match(await bundle(text), { probe: Function })
    t.equal(await ask(named({ ...spec, caBundle: Buffer.from(text).toString('base64') })), 'Bearer chy_a', 'trusted')
  }
})
