/** Watches that expire, end, break or fall silent, and an API server that turns calls away: nothing is missed. */
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { slowTest } from '../helpers/slow.ts'
import { issuerIs, leads, openRunning, queued, type Running, statusWrites, until } from './running.ts'

const calls = ({ cluster }: Running, verb: string): number =>
  cluster.requests.filter((about) => about.verb === verb && about.plural === 'certificaterequests').length

slowTest('watches that expire are listed anew, and what happened meanwhile is found', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  await issuerIs(running, 'True')
  running.cluster.faults.holdWatches()
  await running.ask('missed-1')
  running.cluster.faults.expireWatches()
  await running.ended('missed-1', 'Issued')
  t.equal(calls(running, 'list'), 2)
  t.equal(statusWrites(running).length, 1)
})

slowTest('watches that end go on from where they were; so do those that break', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  await issuerIs(running, 'True')
  for (const how of ['end', 'cut'] as const) {
    running.cluster.faults.closeWatches(how)
    await running.ask(`${how}-1`)
    await running.ended(`${how}-1`, 'Issued')
  }
  t.equal(calls(running, 'list'), 1, 'without listing anything again')
})

slowTest('an API server that throttles, fails or refuses a write for a moment', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  await issuerIs(running, 'True')
  const when = { plural: 'certificaterequests', verb: 'patch' }
  for (const kind of ['throttle', 'unavailable', 'error', 'drop', 'conflict', 'lose'] as const) {
    running.cluster.faults.add(kind, { when, times: 1 })
    await running.ask(`${kind}-1`)
    await running.ended(`${kind}-1`, 'Issued')
  }
  t.equal((await running.issued()).length, 6)
})

t.test('an API server that cannot be reached for a while is waited for', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  await issuerIs(running, 'True')
  const heal = running.cluster.faults.partition()
  await new Promise((resolve) => setTimeout(resolve, 500))
  heal()
  await running.ask('back-1')
  await running.ended('back-1', 'Issued')
  t.ok(running.controllers[0]?.ready)
})

slowTest('probes and metrics tell how it is', async (t) => {
  const running = await openRunning(t)
  const [controller] = running.controllers
  await running.issuer()
  await running.ask('web-1')
  await running.ended('web-1', 'Issued')
  const get = async (path: string) => {
    const answer = await fetch(`${controller?.url}${path}`)
    return { status: answer.status, text: await answer.text() }
  }
  t.same(await get('/livez'), { status: 200, text: 'ok\n' })
  t.same(await get('/readyz'), { status: 200, text: 'ok\n' })
  t.equal((await get('/')).status, 404)
  const { text } = await get('/metrics')
  t.match(text, 'chancery_controller_leader 1')
  t.match(text, 'chancery_controller_ended_total{resource="certificaterequests",outcome="issued"} 1')
  t.match(text, 'chancery_controller_writes_total{resource="certificaterequests",outcome="written"} 1')
  t.match(text, 'chancery_controller_objects{resource="certificaterequests"} 1')
  t.match(text, 'chancery_controller_asks_seconds_count{outcome="issued"} 1')
})

slowTest('a kind that is not installed yet is waited for, and said at /readyz', async (t) => {
  const running = await openRunning(t, { idle: true, cluster: { definitions: [] } })
  const controller = await running.start()
  const answer = await fetch(`${controller.url}/readyz`)
  t.equal(answer.status, 503)
  t.match(await answer.text(), /chanceryissuers have not been listed yet/)
  t.equal((await fetch(`${controller.url}/livez`)).status, 200)
})

t.test('of an issuer that could not be listed yet nobody is told that there is none', async (t) => {
  const running = await openRunning(t, { idle: true })
  await running.issuer()
  const unlisted = running.cluster.faults.add('error', { when: { plural: 'chanceryissuers', verb: 'list' } })
  const controller = await running.start()
  await running.ask('early-1')
  await leads(controller)
  const known = 'chancery_controller_objects{resource="certificaterequests"} 1'
  while (!(await controller.metrics()).includes(known)) await sleep(5)
  await sleep(100)
  t.equal(await queued(running, 'left'), 0)
  unlisted.end()
  await running.ended('early-1', 'Issued')
  t.equal(statusWrites(running).length, 1)
})

slowTest('a right that is taken away later: not ready, and alive, until it is there again', async (t) => {
  const running = await openRunning(t)
  const [controller] = running.controllers
  await until(() => controller?.ready === true)
  const probe = async (path: string) => {
    const answer = await fetch(`${controller?.url}${path}`)
    return { status: answer.status, text: await answer.text() }
  }
  const listed = running.cluster.faults.add('error', { when: { plural: 'chanceryissuers', verb: 'list' } })
  const watched = running.cluster.faults.add('error', { when: { plural: 'chanceryissuers', verb: 'watch' } })
  running.cluster.faults.closeWatches('cut')
  await until(() => watched.used() > 0)
  controller?.pass(170_000)
  t.equal((await probe('/readyz')).status, 200, 'not for what mends itself')
  controller?.pass(20_000)
  t.match(await probe('/readyz'), { status: 503, text: /^chanceryissuers have not been seen for 19\d s/ })
  t.notOk(controller?.ready)
  t.equal((await probe('/livez')).status, 200)
  t.match((await probe('/metrics')).text, /chancery_controller_watch_stale_seconds\{resource="chanceryissuers"\} 19\d/)
  listed.end()
  watched.end()
  await until(() => controller?.ready === true)
  t.equal((await probe('/readyz')).status, 200)
  t.match((await probe('/metrics')).text, 'chancery_controller_watch_stale_seconds{resource="chanceryissuers"} 0')
})
