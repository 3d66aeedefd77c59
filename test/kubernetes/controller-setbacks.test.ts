/** What the controller makes of a Chancery that is away, slow or changed, and of issuers that come late. */
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import {
  assertOne,
  issuerIs,
  messageOf,
  openRunning,
  queued,
  serialOf,
  statusWrites,
  until,
  writesOf,
} from './running.ts'
import { condition, type Tree, textAt } from './values.ts'

slowTest('an issuer that comes later, and its Secret still later, are waited for', async (t) => {
  const running = await openRunning(t)
  await running.ask('early-1')
  t.match(messageOf(await running.ended('early-1', 'Pending')), /ChanceryIssuer default does not exist/)
  await running.issuer({ spec: { auth: { tokenSecretRef: { name: 'later', key: 'secret' } } } })
  const broken = await issuerIs(running, 'False')
  t.match(broken, { reason: 'Failed', message: 'Secret team-a/later does not exist' })
  await running.cluster.apply({
    ...{ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'later', namespace: 'team-a' } },
    data: { secret: Buffer.from(running.token).toString('base64') },
  })
  await running.ended('early-1', 'Issued')
})

slowTest('what passes within a moment costs no write: 503, a proxy’s page, a connection that breaks', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  await issuerIs(running, 'True')
  running.front.next('unavailable', 'gateway', 'drop')
  await running.ask('blip-1')
  await running.ended('blip-1', 'Issued')
  t.equal(statusWrites(running).length, 1)
  t.equal((await running.issued()).length, 1)
})

slowTest('an answer that is lost after the CA has signed does not make a second certificate', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  await issuerIs(running, 'True')
  running.front.next('lose', 'lose')
  await running.ask('lost-1')
  const done = await running.ended('lost-1', 'Issued')
  const issued = await running.issued()
  t.equal(issued.length, 1)
  t.equal(serialOf(done), issued[0]?.serial)
  t.ok(running.front.issued.length >= 3)
  t.equal(new Set(running.front.issued).size, 1)
})

slowTest(
  'an instance of Chancery that goes after it has signed: another one hands out the same certificate',
  async (t) => {
    const running = await openRunning(t)
    const other = await openTestService(t, {}, running.service)
    await running.issuer()
    await issuerIs(running, 'True')
    running.front.next('lose')
    const { held, release } = running.front.hold()
    await running.ask('moved-1')
    await held
    release()
    await until(() => running.front.issued.length > 1)
    running.front.to(other.url)
    await assertOne(t, running, 'moved-1')
  },
)

slowTest('a Chancery that is away is waited for, and said of the issuer', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  await issuerIs(running, 'True')
  running.front.to(undefined)
  await running.ask('away-1')
  const away = await issuerIs(running, 'False')
  t.match(away, { reason: 'Pending' })
  t.match(messageOf(await running.ended('away-1', 'Pending')), /cannot be reached|is not ready|broke off/)
  running.front.to(running.service.url)
  await running.ended('away-1', 'Issued')
  t.equal(textAt(await issuerIs(running, 'True'), 'reason'), 'Checked')
})

slowTest('a key that is away makes the issuer wait, though it answers when it is only asked how it is', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  await issuerIs(running, 'True')
  running.front.next(keyAway, keyAway, keyAway)
  await running.ask('key-1')
  await issuerIs(running, 'False')
  await running.ended('key-1', 'Issued')
  await issuerIs(running, 'True')
})

slowTest(
  'a signature that comes late once or twice costs no write, neither of the issuer nor of the request',
  async (t) => {
    const running = await openRunning(t)
    await running.issuer()
    await issuerIs(running, 'True')
    const before = writesOf(running, 'chanceryissuers').length
    for (const [name, fates] of [
      ['once-1', [keyAway]],
      ['twice-1', [keyAway, keyAway]],
    ] as const) {
      const written = statusWrites(running).length
      running.front.next(...fates)
      await running.ask(name)
      await running.ended(name, 'Issued')
      t.equal(statusWrites(running).length, written + 1, name)
    }
    t.equal(writesOf(running, 'chanceryissuers').length, before)
  },
)

slowTest('what a limit asks for holds: whatever is named again, and whether the issuer is ready or not', async (t) => {
  const running = await openRunning(t, { resyncMs: 20, settings: { recheck: 0.1 } })
  await running.issuer()
  await issuerIs(running, 'True')
  const limited = { status: 429, code: 'limit.certificates_per_day', retryable: true, retryAfter: 3_600 }
  running.front.say(() => limited)
  await running.ask('limited-1')
  while ((await queued(running, 'left')) !== 1) await sleep(5)
  running.front.say(() => 'pass')
  const asked = running.front.issued.length
  await sleep(200)
  running.front.to(undefined)
  await issuerIs(running, 'False')
  running.front.to(running.service.url)
  await issuerIs(running, 'True')
  await running.ask('other-1')
  await running.ended('other-1', 'Issued')
  t.equal(running.front.issued.length, asked + 1, 'the other one alone')
  // Another issuer of the name may have other limits.
  await running.issuer({ spec: { onBehalfOf: true } })
  await running.ended('limited-1', 'Issued')
})

slowTest('a limit that a team’s own token has used up is the team’s; what all share is the operator’s', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  await running.issuer({ kind: 'ChanceryClusterIssuer', name: 'shared' })
  await issuerIs(running, 'True')
  const isReady = (one: Tree | undefined): boolean => textAt(condition(one, 'Ready') ?? {}, 'status') === 'True'
  await running.cluster.until('chanceryclusterissuers', { name: 'shared' }, isReady)
  const counted = async (later: number, left: number): Promise<void> => {
    while ((await queued(running, 'later')) !== later || (await queued(running, 'left')) !== left) await sleep(5)
    t.pass(`${later} later, ${left} left`)
  }
  const limits = ['limit.certificates_per_day', 'limit.names_per_day', 'limit.certificates_alive']
  for (const [i, code] of limits.entries()) {
    running.front.say(() => ({ status: 429, code, retryable: true, retryAfter: 3_600 }))
    await running.ask(`own-${i}`)
    await counted(i, i + 1)
    await running.ask(`shared-${i}`, { issuer: { kind: 'ChanceryClusterIssuer', name: 'shared' } })
    await counted(i + 1, i + 1)
  }
  // What passes by itself within moments is no allowance that anybody has used up.
  running.front.say(() => ({ status: 429, code: 'limit.requests', retryable: true, retryAfter: 3_600 }))
  await running.ask('hasty-1')
  await counted(limits.length + 1, limits.length)
})

t.test('what is gone waits for nothing', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  await issuerIs(running, 'True')
  running.front.say(() => ({ status: 429, code: 'limit.certificates_per_day', retryable: true, retryAfter: 3_600 }))
  await running.ask('limited-1')
  while ((await queued(running, 'left')) !== 1) await sleep(5)
  await running.cluster.remove('certificaterequests', 'team-a', 'limited-1')
  while ((await queued(running, 'left')) !== 0) await sleep(5)
  t.pass('neither for what a limit has asked for')
})

slowTest('a server that answers some probes and issues to nobody is not written about at each of them', async (t) => {
  const running = await openRunning(t)
  await running.issuer()
  await issuerIs(running, 'True')
  running.front.say(() => ({ status: 401, code: 'auth.invalid', retryable: false, detail: `${Math.random()}` }))
  for (let i = 0; i < 8; i += 1) await running.ask(`some-${i}`)
  let isThere = true
  const flip = setInterval(() => {
    isThere = !isThere
    running.front.to(isThere ? running.service.url : undefined)
  }, 100)
  const before = writesOf(running, 'chanceryissuers').length
  await sleep(4_000)
  clearInterval(flip)
  const writes = writesOf(running, 'chanceryissuers').length - before
  t.ok(writes <= 6, `${writes} writes`)
})

const keyAway = { status: 503, code: 'key.unavailable', retryable: true }
