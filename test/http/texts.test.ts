import t from 'tap'

import { openStandIn } from './stand-in.ts'

t.test('texts that could not be kept as they are sent are turned down, and nothing of ours fails', async (t) => {
  const { app } = await openStandIn()
  t.teardown(() => app.close())
  const ask = async (url: string, payload: object) => {
    const answer = await app.inject({ method: 'POST', url, headers: { authorization: 'Bearer admin_' }, payload })
    return [answer.statusCode, answer.json().code]
  }
  const requester = { principal: 'a', role: 'requester', profiles: ['client'] }
  const calls = (text: string): readonly (readonly [string, object])[] => [
    ['/v1/tokens', { principal: 'a', label: text }],
    ['/v1/credentials', { principal: 'a', label: text, spiffeId: 'spiffe://a/b' }],
    ['/v1/grants', { ...requester, names: { commonName: { allow: [text] } } }],
    ['/v1/grants', { ...requester, onBehalfOf: { users: { deny: [text] } } }],
    ['/v1/issuers/default/moves', { move: 'halt', reason: text }],
  ]
  for (const text of ['\0', 'a\0b', '\ud800', 'b\udc00c'])
    for (const [url, payload] of calls(text))
      t.same(await ask(url, payload), [400, 'request.malformed'], `${url} ${JSON.stringify(payload)}`)
  // Whatever reaches the stand-in ends there.
  for (const text of ['web', '\u{1f510} web', 'a \\u0000 b'])
    for (const [url, payload] of calls(text))
      t.same(await ask(url, payload), [404, 'certificate.not_found'], `${url} ${JSON.stringify(payload)}`)
})
