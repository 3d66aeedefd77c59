/** Watches whose lines cannot be read, as a proxy between may send them. */
import type { RequestListener } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { type ApiCall, ApiFault, type KubernetesApi, type LinesCall, openApi } from '../../src/kubernetes/api/client.ts'
import type { CertificateRequest } from '../../src/kubernetes/api/objects.ts'
import { resources } from '../../src/kubernetes/api/resources.ts'
import { openWatch, type WatchDeps } from '../../src/kubernetes/api/watch.ts'
import { openClientCa, serverAuth } from '../helpers/clients.ts'
import { quiet } from '../helpers/log.ts'
import { slowTest } from '../helpers/slow.ts'
import { ip } from '../x509/build.ts'
import { certificateRequest } from './objects.ts'

type Teardown = { teardown(close: () => Promise<void>): unknown }

/** A server of one object more at each list. */
const open = (t: Teardown, lines: readonly string[], more: Partial<WatchDeps<CertificateRequest>> = {}) => {
  const told: string[] = []
  const came: string[] = []
  const asked = { lists: 0, watches: 0 }
  const list = () => ({
    metadata: { resourceVersion: `${++asked.lists}` },
    items: Array.from({ length: asked.lists }, (_, i) => named(`web-${i + 1}`)),
  })
  const api = {
    call: async () => list() as never,
    lines: async (_: string, { begun, take, signal }: LinesCall) => {
      asked.watches += 1
      await sleep(1)
      begun?.()
      for (const line of lines) take(line)
      await sleep(60_000, undefined, { signal, ref: false })
    },
  } satisfies Partial<KubernetesApi>
  const log = { ...quiet, warn: ({ err }: { readonly err?: Error }) => void told.push(err?.message ?? '') }
  const watch = openWatch<CertificateRequest>({
    ...{ api, resource: resources.certificateRequests, keep: (object) => object, log },
    changed: (_, next) => void (next && came.push(next.metadata.name)),
    ...{ random: () => 0, now: () => performance.now(), firstMs: 10, mostMs: 40, ...more },
  })
  t.teardown(() => watch.close())
  return { watch, told, came, asked }
}

const named = (name: string, more: object = {}) => {
  const request = certificateRequest('10-get-approved')
  return { ...request, metadata: { ...request.metadata, name, ...more } }
}

const settled = async (is: () => boolean): Promise<boolean> => {
  for (let tries = 0; tries < 1_000 && !is(); tries += 1) await sleep(5)
  return is()
}

const event = (type: string, name: string, more?: object): string => JSON.stringify({ type, object: named(name, more) })

for (const line of ['{"type":"MODIF', 'null', '7', '{"type":"MODIFIED"}', '{"type":"ADDED","object":{"metadata":{}}}'])
  t.test(`what ${line} hides is listed, ever more rarely`, async (t) => {
    const { watch, told, came, asked } = open(t, [line, event('ADDED', 'hidden-1')])
    t.ok(await settled(() => watch.size === 3))
    t.ok(asked.watches <= asked.lists, 'one for each list')
    t.notOk(came.includes('hidden-1'))
    t.same([...new Set(told)], ['a line of the watch holds no event that can be read'])
  })

t.test('what came before counts', async (t) => {
  const { came, asked } = open(t, [event('ADDED', 'before-1'), '{'])
  t.ok(await settled(() => came.includes('before-1') && asked.lists > 2))
  t.ok(asked.watches <= asked.lists, 'and is no reason to come again at once')
})

t.test(
  'one that says the same each time, and ends, gets no further, and is no reason to come again at once',
  async (t) => {
    const asked: string[] = []
    const api = {
      call: async () => ({ metadata: { resourceVersion: '7' }, items: [] }) as never,
      lines: async (_: string, { begun, take }: LinesCall) => {
        asked.push('watch')
        await sleep(1)
        begun?.()
        take('{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}')
      },
    }
    const { told } = open(t, [], { api, firstMs: 200, mostMs: 200 })
    await sleep(500)
    t.ok(asked.length < 8, `${asked.length}`)
    t.same([...new Set(told)], ['the watch has ended at once'])
  },
)

t.test(
  'one that a proxy ends because nothing happens goes on at once from where it was, again and again',
  async (t) => {
    const time = { now: 0 }
    const queries: string[] = []
    const reasons: string[] = []
    const api = {
      call: async () => {
        queries.push('list')
        return { metadata: { resourceVersion: '7' }, items: [] } as never
      },
      lines: async (_: string, { begun, query }: LinesCall) => {
        queries.push(`watch ${query['resourceVersion']}`)
        await sleep(1)
        begun?.()
        time.now += lasts
        throw new ApiFault(0, 'aborted')
      },
    }
    let lasts = 1_001
    const more = { now: () => time.now, restarted: (reason: string) => void reasons.push(reason) }
    const { told, watch } = open(t, [], { api, ...more, firstMs: 600_000, mostMs: 600_000 })
    t.ok(await settled(() => queries.length > 7))
    t.same(queries.slice(0, 3), ['list', 'watch 7', 'watch 7'])
    t.same([...new Set(reasons)], ['broken'])
    t.same(told, [])
    lasts = 1_000
    t.ok(await settled(() => told.length > 0), 'one that is turned away is waited for')
    t.same(told, ['aborted'])
    t.equal(reasons.at(-1), 'failed')
    await watch.close()
  },
)

/** Answers each watch with the next of these ends; the last one is that of all that follow. */
const openEnding = (
  t: Teardown,
  ends: readonly (ApiFault | string)[],
  more: Partial<WatchDeps<CertificateRequest>>,
) => {
  const reasons: string[] = []
  const asked = { lists: 0, watches: 0 }
  const api = {
    call: async () => {
      asked.lists += 1
      return { metadata: { resourceVersion: '7' }, items: [] } as never
    },
    lines: async (_: string, { take }: LinesCall) => {
      const end = ends[Math.min(asked.watches++, ends.length - 1)]
      await sleep(1)
      if (typeof end !== 'string') throw end
      take(end)
    },
  }
  const { told } = open(t, [], { api, restarted: (reason) => void reasons.push(reason), ...more })
  return { asked, reasons, told }
}

const gone = new ApiFault(410, 'too old', { reason: 'Expired' })
const never = { firstMs: 600_000, mostMs: 600_000 }

t.test('what has expired is listed at once and without a word; again, only after a while', async (t) => {
  const { asked, reasons, told } = openEnding(t, [gone], never)
  t.ok(await settled(() => told.length > 0))
  t.same(asked, { lists: 2, watches: 2 })
  t.same(reasons, ['expired', 'expired'])
  t.same(told, ['too old'])
})

t.test('a version that the server has not reached has expired, too', async (t) => {
  const { asked, reasons } = openEnding(t, [new ApiFault(504, 'Too large resource version')], never)
  t.ok(await settled(() => asked.lists === 2))
  t.equal(reasons[0], 'expired')
})

t.test('any other end is waited for the first time, and said', async (t) => {
  const { asked, reasons, told } = openEnding(t, [new ApiFault(500, 'it failed')], never)
  t.ok(await settled(() => told.length > 0))
  await sleep(50)
  t.same(asked, { lists: 1, watches: 1 })
  t.same(reasons, ['failed'])
  t.same(told, ['it failed'])
})

t.test('a watch that gets further makes up for what was before', async (t) => {
  const { asked, told } = openEnding(t, [gone, event('ADDED', 'new-1', { resourceVersion: '8' }), gone], never)
  t.ok(await settled(() => asked.watches === 4))
  t.ok(await settled(() => told.length > 0))
  t.same(asked, { lists: 3, watches: 4 })
})

t.test('setbacks are waited for ever longer, up to the most, and as long as the server says', async (t) => {
  const failed = new ApiFault(500, 'it failed')
  const growing = openEnding(t, [failed], { firstMs: 1, mostMs: 600_000 })
  t.ok(await settled(() => growing.asked.watches > 5), 'the first are short')
  const bounded = openEnding(t, [failed], { firstMs: 600_000, mostMs: 1 })
  t.ok(await settled(() => bounded.asked.watches > 2))
  const asking = openEnding(t, [new ApiFault(429, 'not now', { retryAfter: 60 })], { firstMs: 1, mostMs: 1 })
  t.ok(await settled(() => asking.told.length > 0))
  await sleep(50)
  t.equal(asking.asked.watches, 1)
})

t.test('whoever closes it waits for the answer that is under way, and is told nothing of its end', async (t) => {
  const ended: string[] = []
  let isOpen = false
  const api = {
    call: async () => ({ metadata: { resourceVersion: '7' }, items: [] }) as never,
    lines: async (_: string, { begun, signal }: LinesCall) => {
      begun?.()
      isOpen = true
      await new Promise((resolve) => signal.addEventListener('abort', resolve))
      await sleep(20)
      ended.push('ended')
      throw signal.reason
    },
  }
  const { watch, told } = open(t, [], { api, restarted: (reason) => void ended.push(reason) })
  t.ok(await settled(() => isOpen))
  await watch.close()
  t.same(ended, ['ended'])
  t.same(told, [])
})

t.test(
  'what is asked for is of what is wanted, from where it was, and ends by itself after some minutes',
  async (t) => {
    const calls: object[] = []
    const time = { now: 0 }
    const api = {
      call: async (method: string, path: string, { query, signal }: ApiCall = {}) => {
        calls.push({ method, path, query, signal: signal instanceof AbortSignal })
        return { metadata: { resourceVersion: '7' }, items: [] } as never
      },
      lines: async (path: string, { query, patienceMs, begun, take, signal }: LinesCall) => {
        calls.push({ path, query, patienceMs })
        begun?.()
        if (query['resourceVersion'] === '7')
          return take('{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}')
        if (calls.length > 3) await sleep(60_000, undefined, { signal, ref: false })
        time.now += 300_000
      },
    }
    const keep = (object: CertificateRequest): CertificateRequest => {
      if (object.spec === undefined) throw new TypeError('it is none')
      return object
    }
    const more = { keep, fieldSelector: 'spec.x=y', random: () => 0.25, now: () => time.now }
    const { watch, told, came } = open(t, [], { api, ...more })
    t.ok(await settled(() => calls.length > 3))
    const path = '/apis/cert-manager.io/v1/certificaterequests'
    const all = { fieldSelector: 'spec.x=y' }
    const watching = (resourceVersion: string) => ({
      path,
      query: { ...all, watch: 'true', allowWatchBookmarks: 'true', resourceVersion, timeoutSeconds: '315' },
      patienceMs: 330_000,
    })
    t.same(calls, [
      { method: 'GET', path, query: { ...all, limit: '50', continue: undefined }, signal: true },
      watching('7'),
      watching('9'),
      watching('9'),
    ])
    t.same([...watch.all(), ...came, ...told], [], 'a bookmark is no object')
  },
)

t.test('what has expired behind some events is listed at once, from what is there now', async (t) => {
  const asked: string[] = []
  const reasons: string[] = []
  const api = {
    call: async () => {
      asked.push('list')
      return { metadata: { resourceVersion: '7' }, items: [] } as never
    },
    lines: async (_: string, { begun, take, query, signal }: LinesCall) => {
      asked.push(`watch ${query['resourceVersion']}`)
      begun?.()
      if (asked.length > 2) await sleep(60_000, undefined, { signal, ref: false })
      take(event('ADDED', 'new-1', { resourceVersion: '8' }))
      take('{"type":"ERROR","object":{"code":410}}')
    },
  }
  const { told } = open(t, [], { api, restarted: (reason) => void reasons.push(reason), ...never })
  t.ok(await settled(() => asked.length > 3))
  t.same(asked, ['list', 'watch 7', 'list', 'watch 7'])
  t.same(reasons, ['expired'])
  t.same(told, [])
})

t.test('the end of a watch that was closed is not told, whatever came before', async (t) => {
  const reasons: string[] = []
  const { watch, came } = open(t, [event('ADDED', 'new-1')], { restarted: (reason) => void reasons.push(reason) })
  t.ok(await settled(() => came.includes('new-1')))
  await watch.close()
  t.same(reasons, [])
})

/** As the API server ends a watch that it has no room for now. */
const later = (seconds: number): string =>
  JSON.stringify({ type: 'ERROR', object: { code: 429, message: 'later', details: { retryAfterSeconds: seconds } } })

t.test('a watch that ends with when to come again is left alone so long', async (t) => {
  const faults: unknown[] = []
  const log = { ...quiet, warn: ({ err }: { readonly err?: unknown }) => void faults.push(err) }
  const { asked } = open(t, [later(3_600)], { log })
  t.ok(await settled(() => faults.length > 0))
  t.match(faults, [{ status: 429, message: 'later', retryAfter: 60 }], 'a minute at most, as for any call')
  t.same(asked, { lists: 1, watches: 1 })
})

t.test('so it is behind events, which count', async (t) => {
  const began: number[] = []
  const api = {
    call: async () => ({ metadata: { resourceVersion: '7' }, items: [] }) as never,
    lines: async (_: string, { begun, take, query, signal }: LinesCall) => {
      began.push(performance.now())
      begun?.()
      if (query['resourceVersion'] === '8') await sleep(60_000, undefined, { signal, ref: false })
      take(event('ADDED', 'new-1', { resourceVersion: '8' }))
      take(later(1))
    },
  }
  const { told } = open(t, [], { api })
  t.ok(await settled(() => began.length > 1))
  const [first = 0, second = 0] = began
  // A timer may be a millisecond early.
  t.ok(second - first >= 999, `after ${second - first} ms`)
  t.same(told, [], 'and is no setback')
})

/** Of watches; as whatever is before the API server has it. */
const openProxy = async (t: Teardown, answer: RequestListener) => {
  const ca = openClientCa('HTTPS of a proxy')
  const { cert, key } = ca.certify({ usage: serverAuth, names: [ip('7f000001')] })
  const server = createServer({ cert, key }, answer)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const access = async () => ({
    ...{ server: `https://127.0.0.1:${(server.address() as AddressInfo).port}`, headers: {}, tls: { ca: ca.pem } },
  })
  const behind = openApi(access)
  const asked: string[] = []
  const api = {
    call: async () => {
      asked.push('list')
      return { metadata: { resourceVersion: '1' }, items: [] } as never
    },
    lines: async (path: string, call: LinesCall) => {
      asked.push('watch')
      await behind.lines(path, call)
    },
  }
  t.teardown(async () => {
    behind.close()
    server.close()
    server.closeAllConnections()
  })
  return { api, asked }
}

slowTest('a watch may be silent for longer than any other call may take', async (t) => {
  const { api, asked } = await openProxy(t, (_, response) => {
    response.flushHeaders()
    setTimeout(() => response.write(`${event('ADDED', 'late-1')}\n`), 16_000)
  })
  const { watch, told } = open(t, [], { api })
  await sleep(15_500)
  t.ok(await settled(() => watch.size === 1 || told.length > 0))
  t.same([asked, told], [['list', 'watch'], []])
})

t.test('an answer that ends within a line is no more than that', async (t) => {
  const { api, asked } = await openProxy(t, (_, response) => {
    // Behind a proxy it ends in order.
    const resourceVersion = `${asked.length}`
    response.end(`${event('ADDED', 'whole-1', { resourceVersion })}\n${event('ADDED', 'cut-1').slice(0, -9)}`)
  })
  const { watch, told } = open(t, [], { api })
  t.ok(await settled(() => asked.length > 3))
  t.same(asked.slice(0, 4), ['list', 'watch', 'watch', 'watch'], 'it is watched from there')
  t.equal(watch.size, 1)
  t.same(told, [])
})
