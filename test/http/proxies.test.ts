/** Where requests come from, and whose word is taken for it: over real connections, with and without a listed proxy. */
import t from 'tap'

import { forwardedCertificate, openPeers, type Peer, type ProxySettings } from '../../src/http/peers.ts'
import { connect } from '../helpers/clients.ts'
import { type Answer, openTestService, type RequestOptions, type TestService } from '../helpers/service.ts'
import { openClients } from './clients.ts'
import { employ } from './people.ts'

const { ca, file, service: plain, tie } = await openClients(t)
/** Of three instances together. */
const strict = { CHANCERY_LIMIT_FAILED_AUTHENTICATIONS: '12', CHANCERY_CLIENT_CA: file }
const direct = await openTestService(t, strict, plain)
const proxied = await openTestService(t, { ...strict, CHANCERY_TRUSTED_PROXIES: '127.0.0.1, 10.0.0.0/8' }, plain)
const bad = `chy_${'A'.repeat(49)}`

const look = (service: TestService, options: RequestOptions = {}): Promise<Answer> =>
  service.request('GET', '/v1/authorities', { token: null, ...options })

const from = (address: string) => ({ 'x-forwarded-for': address })
const header = (der: Buffer) => ({ 'client-cert': `:${der.toString('base64')}:` })

t.test('failed authentications are counted by address, before anything is looked at', async (t) => {
  const known = await employ(plain, 'known', 'auditor')
  const unknown = await employ(plain, 'unknown', 'auditor')
  const ask = async (token: string | null, headers = {}): Promise<string> => {
    const { status, json } = await look(direct, { token, headers })
    return status === 200 ? 'in' : json.code
  }
  for (let i = 0; i < 5; i += 1) t.equal(await ask(null), 'auth.missing', 'whoever shows nothing has guessed nothing')
  t.equal(await ask(known), 'in')
  let answer = await look(direct, { token: bad })
  for (let tries = 0; answer.status === 401 && tries < 100; tries += 1)
    answer = await look(direct, { token: bad, headers: from(`192.0.2.${tries}`) })
  t.match(answer, { status: 429, json: { code: 'limit.failed_authentication', retryable: true, next: String } })
  t.match(answer.json.limit, { name: 'failedAuthentication', value: 12 }, 'a header of anybody changes nothing')
  t.ok(Number(answer.headers['retry-after']) >= 1)
  t.equal(await ask(known), 'in', 'whoever was good there goes on')
  t.equal(await ask(null, { authorization: `bearer   ${known} ` }), 'in', 'however the token is written')
  t.equal(await ask(unknown), 'limit.failed_authentication')
  const metrics = await plain.request('GET', '/metrics')
  t.equal(metrics.status, 200, 'another instance has its own share')
})

t.test('requests of an address are limited whoever asks, but probes are not', async (t) => {
  const narrow = await openTestService(t, { CHANCERY_LIMIT_ADDRESS_REQUESTS: '8' }, plain)
  const answers = await Promise.all(Array.from({ length: 20 }, () => look(narrow, { token: plain.adminToken })))
  const refused = answers.filter(({ status }) => status === 429)
  t.ok(refused.length > 0 && refused.length < 20, `${refused.length} of 20`)
  t.match(refused[0]?.json, { code: 'limit.address_requests', limit: { name: 'addressRequests', value: 8 } })
  t.equal(refused[0]?.headers['retry-after'], '1')
  for (let i = 0; i < 20; i += 1) t.equal((await narrow.request('GET', '/livez', { token: null })).status, 200)
  t.equal((await look(plain, { token: plain.adminToken })).status, 200)
  const unknown = () => narrow.request('GET', '/nothing', { token: null })
  const other = () => narrow.request('DELETE', '/v1/authorities', { token: null })
  for (const [ask, status] of [
    [unknown, 404],
    [other, 405],
  ] as const) {
    const statuses = (await Promise.all(Array.from({ length: 20 }, ask))).map((answer) => answer.status)
    t.ok(statuses.includes(429), `also what is answered ${status}: ${statuses.join(' ')}`)
  }
  await narrow.close()
})

t.test('a listed proxy says where a request comes from', async (t) => {
  const asked = async (address: string): Promise<number> =>
    (await look(proxied, { token: bad, headers: from(address) })).status
  const exhaust = async (address: string): Promise<void> => {
    for (let tries = 0; (await asked(address)) !== 429; tries += 1) if (tries > 100) throw new Error('never refused')
  }
  await exhaust('192.0.2.1')
  t.equal(await asked('192.0.2.2'), 401, 'another client of the same proxy')
  await exhaust('192.0.2.1')
  t.equal(await asked('198.51.100.7, 192.0.2.1'), 429, 'what a client says itself stands before, and is not believed')
  await exhaust('192.0.2.1')
  t.equal(await asked('192.0.2.1, 10.1.2.3'), 429, 'one listed proxy behind another')
  t.equal(await asked('192.0.2.1, 11.1.2.3'), 401, 'one that is not listed is whoever asks')
  await exhaust('2001:db8:1:2::1')
  t.equal(await asked('2001:db8:1:2:ffff::7'), 429, 'an IPv6 address is its /64')
  t.equal(await asked('2001:db8:1:3::1'), 401)
})

t.test('a certificate in a header is believed of a listed proxy, and refused of anybody else', async (t) => {
  const client = ca.certify()
  await tie('behind', { fingerprint: client.fingerprint })
  t.equal((await look(proxied, { headers: header(client.der) })).status, 200)
  for (const [what, options] of [
    ['alone', { headers: header(client.der) }],
    ['with a token that is good', { token: plain.adminToken, headers: header(client.der) }],
    ['that is empty', { headers: { 'client-cert': '' } }],
  ] as const)
    t.match(await look(plain, options), { status: 401, json: { code: 'auth.proxy', retryable: false } }, what)
  const raw = connect(plain, { client })
  t.teardown(raw.close)
  t.equal((await raw.request('GET', '/v1/authorities')).status, 200, 'its own certificate is its own')
  t.match((await raw.request('GET', '/v1/authorities', { headers: header(client.der) })).json, { code: 'auth.proxy' })
  t.equal((await plain.request('GET', '/livez', { token: null, headers: header(client.der) })).status, 200)
})

t.test('what a proxy says of a certificate is judged as if it had come itself', async (t) => {
  let clients = 0
  const ask = async (options: RequestOptions): Promise<string> => {
    clients += 1
    const headers = { ...from(`203.0.113.${clients}`), ...options.headers }
    const answer = await look(proxied, { ...options, headers })
    return answer.status === 200 ? 'in' : answer.json.code
  }
  const client = ca.certify()
  const expired = ca.certify({ from: -100, to: -10 })
  t.equal(await ask({ headers: header(client.der) }), 'auth.unmapped')
  t.equal(await ask({ headers: header(expired.der) }), 'auth.expired')
  const token = plain.adminToken
  t.equal(await ask({ token, headers: header(client.der) }), 'auth.ambiguous')
  const base64url = `:${client.der.toString('base64url')}:`
  const good = header(client.der)['client-cert']
  const more = [`${good}, ${good}`, `x${good}`, `${good}x`]
  for (const field of ['', 'x', '::', ':AAAA:', base64url, ':AAAA:, :AAAA:', ...more])
    t.equal(await ask({ headers: { 'client-cert': field } }), 'auth.invalid', JSON.stringify(field))
})

t.test('the certificate of a proxy itself is nobody behind it', async (t) => {
  const own = ca.certify()
  await tie('proxy', { fingerprint: own.fingerprint }, 'admin')
  const connection = connect(proxied, { client: own })
  t.teardown(connection.close)
  const answer = await connection.request('GET', '/v1/authorities', { headers: from('203.0.113.77') })
  t.match(answer.json, { code: 'auth.missing' })
  const { status } = await connection.request('GET', '/v1/authorities', { token: plain.adminToken })
  t.equal(status, 200, 'a client behind it has its own credentials')
})

t.test('addresses are read as proxies write them, and what is no address ends the way back', async (t) => {
  const peerOf = (settings: Partial<ProxySettings>, remoteAddress: string | undefined, headers = {}): Peer => {
    const read = openPeers({ networks: ['10.0.0.0/8', '2001:db8:ffff::/48'], header: 'x-forwarded-for', ...settings })
    return read({ headers, raw: { socket: { remoteAddress } as never } })
  }
  const v6 = '20010db800010002'
  for (const [remote, field, address] of [
    ['192.0.2.1', '198.51.100.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '', '192.0.2.1'],
    ['::ffff:10.0.0.1', '198.51.100.1', '198.51.100.1'],
    ['10.0.0.1', '198.51.100.1:4711', '198.51.100.1'],
    ['10.0.0.1', '[2001:db8:1:2::9]:4711', v6],
    ['10.0.0.1', '2001:db8:1:2::9', v6],
    ['10.0.0.1', '9.9.9.9, 2001:db8:1:2::9 ', v6],
    ['10.0.0.1', '198.51.100.1x', '10.0.0.1'],
    ['10.0.0.1', '[2001:db8:1:2::9]:4711x', '10.0.0.1'],
    ['2001:db8:ffff::1', 'unknown', '20010db8ffff0000'],
    ['10.0.0.1', '198.51.100.1, unknown', '10.0.0.1'],
    ['10.0.0.1', '', '10.0.0.1'],
    ['10.0.0.1', ', , ,', '10.0.0.1'],
    ['10.0.0.1', '198.51.100.1, 10.9.9.9,10.8.8.8 ', '198.51.100.1'],
    ['10.0.0.1', '10.0.0.300', '10.0.0.1'],
    ['fe80::1%eth0', '', 'fe80000000000000'],
  ] as const)
    t.equal(peerOf({}, remote, from(field)).address, address, `${remote} ${field}`)
  // One address is itself, and none of its neighbours.
  for (const [network, neighbour] of [
    ['192.0.2.1', '192.0.2.2'],
    ['2001:db8::1', '2001:db8::2'],
  ] as const)
    for (const remote of [network, neighbour])
      t.equal(peerOf({ networks: [network] }, remote).isProxy, remote === network, remote)
  t.same(peerOf({}, undefined), { address: 'socket', isProxy: false })
  const forwarded = (field: string) => peerOf({ header: 'forwarded' }, '10.0.0.1', { forwarded: field }).address
  t.equal(forwarded('for=198.51.100.1;proto=https;by=10.0.0.1'), '198.51.100.1')
  t.equal(forwarded('For="[2001:db8:1:2::9]:47011"'), v6)
  t.equal(forwarded('for=192.0.2.43, proto=http;for=198.51.100.17'), '198.51.100.17')
  t.equal(forwarded('for="a,for=192.0.2.43"'), '10.0.0.1')
  t.equal(forwarded('for=_hidden, for=10.1.1.1'), '10.1.1.1')
  t.equal(forwarded('for="192.0.2.\\43:80" ; proto=http , for=10.1.1.1'), '192.0.2.43')
  t.equal(forwarded('for=192.0.2.43,, for=10.1.1.1;;by=_x,for=10.1.1.2;'), '10.1.1.1', 'a hop that says nothing')
  t.equal(forwarded('for=9.9.9.9, for=1.2.3.4;'), '1.2.3.4')
  t.equal(forwarded(' '.repeat(100_000)), '10.0.0.1')
  // Whatever a client sends, what its proxy has written after it is not part of it.
  for (const client of ['for=9.9.9.9;x="', 'for=9.9.9.9;x="\\', 'for=9.9.9.9, "', 'for=9.9.9.9;x=","'])
    for (const written of ['for=1.2.3.4', 'for="[2001:db8::1]"', 'for="1.2.3.4:80";proto=https'])
      t.not(forwarded(`${client}, ${written}`), '9.9.9.9', `${client}, ${written}`)
  for (const broken of [
    'for=9.9.9.9;x=", for=1.2.3.4',
    'for=9.9.9.9;x=", for="[2001:db8::1]"',
    'for=9.9.9.9;for=1.2.3.4',
    'for=9.9.9.9;FOR=9.9.9.9',
    'for=9.9.9.9;x=y z',
    'for=[2001:db8::1]',
    'for=9.9.9.9;x y',
    'for =9.9.9.9',
    'for="9.9.9.9"x',
    'for=9.9.9.9;=',
  ])
    t.equal(forwarded(broken), '10.0.0.1', broken)
  t.equal(peerOf({}, '10.0.0.1', { forwarded: 'for=198.51.100.1' }).address, '10.0.0.1', 'the other field is not read')
  const behind = (hops: number) => peerOf({}, '10.0.0.1', from(`192.0.2.1${',10.0.0.1'.repeat(hops)}`)).address
  t.same([31, 32, 10_000].map(behind), ['192.0.2.1', '10.0.0.1', '10.0.0.1'], 'of so many hops nobody reads more')
})

t.test('a certificate that a proxy has verified keeps no memory beside it', async (t) => {
  const der = forwardedCertificate({ 'client-cert': ':MAMCAQA=:' })
  t.equal(der?.toString('hex'), '3003020100')
  t.equal(der?.buffer.byteLength, 5)
})
