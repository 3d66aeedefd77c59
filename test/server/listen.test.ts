import dns from 'node:dns'
import { once } from 'node:events'
import { connect } from 'node:net'

import t from 'tap'

import { openTestService } from '../helpers/service.ts'

const bothLoopbacks = [
  { address: '127.0.0.1', family: 4 },
  { address: '::1', family: 6 },
]

t.test('a listener at localhost is one, and nothing beside it lacks its bounds', async (t) => {
  const { lookup } = dns
  t.teardown(() => Object.assign(dns, { lookup }))
  // As most machines have it, whatever this one has.
  Object.assign(dns, {
    lookup: (host: string, options: { all?: boolean }, done: (fault: null, found: unknown) => void) =>
      host === 'localhost' && options.all ? done(null, bothLoopbacks) : lookup(host, options, done as never),
  })
  const { url, publicUrl } = await openTestService(t, {
    CHANCERY_LISTEN: 'localhost:0',
    CHANCERY_PUBLIC_LISTEN: 'localhost:0',
  })
  for (const { hostname, port } of [new URL(url), new URL(publicUrl)]) {
    t.equal(hostname, '127.0.0.1')
    const beside = connect(Number(port), '::1')
    const found = await Promise.race([once(beside, 'connect').then(() => 'open'), once(beside, 'error')])
    beside.destroy()
    t.not(found, 'open')
  }
})
