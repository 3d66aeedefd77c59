/** Calls to an API server of which only a part answers, as where a webhook hangs. */
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { openApi } from '../../src/kubernetes/api.ts'
import { openClientCa, serverAuth } from '../helpers/clients.ts'
import { ip } from '../x509/build.ts'

t.test('however many writes hang, the next call is answered', async (t) => {
  const ca = openClientCa('HTTPS of an API server')
  let hanging = 0
  const { promise: hang, resolve: all } = Promise.withResolvers<void>()
  const server = createServer(ca.certify({ usage: serverAuth, names: [ip('7f000001')] }), ({ url }, response) => {
    if (url === '/lease') response.end('{}')
    else if (++hanging === most) all()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const api = openApi(async () => ({
    ...{ server: `https://127.0.0.1:${(server.address() as AddressInfo).port}`, headers: {}, tls: { ca: ca.pem } },
  }))
  const ending = new AbortController()
  t.teardown(() => {
    ending.abort()
    api.close()
    server.closeAllConnections()
    server.close()
  })
  for (let i = 0; i < most; i += 1) api.call('PATCH', '/status', { body: {}, signal: ending.signal }).catch(() => {})
  await Promise.race([hang, sleep(5_000)])
  t.same(await api.call('GET', '/lease', { signal: AbortSignal.timeout(10_000) }), {})
})

/** As many as `concurrency` may be. */
const most = 256
