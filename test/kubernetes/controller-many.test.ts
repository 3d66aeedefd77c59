/** A thousand requests at once. */
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { slowTest } from '../helpers/slow.ts'
import { issuerIs, openRunning, queued, readyOf, statusWrites } from './running.ts'
import { uidOf } from './values.ts'

slowTest('a thousand requests at once: one certificate and one write each, and Chancery is not flooded', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  await issuerIs(running, 'True')
  const names = Array.from({ length: 1_000 }, (_, i) => `many-${i}`)
  await Promise.all(names.map((name) => running.ask(name)))
  await Promise.all(names.map((name) => running.ended(name, 'Issued')))
  t.equal((await running.issued()).length, 1_000)
  t.equal(new Set(running.front.issued).size, 1_000)
  // One whose answer came late is sent again, and changes nothing.
  t.equal(statusWrites(running).filter(({ changed }) => changed).length, 1_000)
  t.ok(running.front.most <= 16, `${running.front.most} at a time`)
})

t.test('a namespace that asks for much through an issuer of the cluster is not before the others', async (t) => {
  const running = await openRunning(t, { settings: { concurrency: 4 } })
  const issuer = { kind: 'ChanceryClusterIssuer', name: 'shared' }
  await running.issuer(issuer)
  await running.cluster.until('chanceryclusterissuers', { name: 'shared' }, (object) => readyOf(object) === 'Checked')
  const { held, release } = running.front.hold()
  for (let i = 0; i < 100; i += 1) await running.ask(`many-${i}`, { issuer })
  await held
  const one = uidOf(await running.ask('one-1', { namespace: 'team-b', issuer }))
  while ((await queued(running, 'ready')) + running.front.issued.length < 101) await sleep(5)
  release()
  await running.cluster.until(
    'certificaterequests',
    { namespace: 'team-b', name: 'one-1' },
    (object) => readyOf(object) === 'Issued',
  )
  t.ok(running.front.issued.indexOf(one) < 10, `it was number ${running.front.issued.indexOf(one) + 1}`)
})
