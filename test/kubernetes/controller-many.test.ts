/** A thousand requests at once. */
import t from 'tap'

import { issuerIs, openRunning, statusWrites } from './running.ts'

t.test('a thousand requests at once: one certificate and one write each, and Chancery is not flooded', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  await issuerIs(running, 'True')
  const names = Array.from({ length: 1_000 }, (_, i) => `many-${i}`)
  await Promise.all(names.map((name) => running.ask(name)))
  await Promise.all(names.map((name) => running.ended(name, 'Issued')))
  t.equal((await running.issued()).length, 1_000)
  t.equal(new Set(running.front.issued).size, 1_000)
  // On a machine that is busy some are asked for again, and some writes sent again, whose answers came late.
  t.ok(statusWrites(running).filter(({ changed }) => changed).length <= running.front.issued.length)
  t.ok(running.front.most <= 16, `${running.front.most} at a time`)
})
