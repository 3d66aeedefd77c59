/**
 * A hundred thousand requests that nobody would send by accident: real ones of every family with octets changed, and
 * built ones of any shape with right signatures. Each gets a problem of the client's or is allowed: no 5xx, no crash,
 * and none holds the event loop for 50 ms. `CHANCERY_FUZZ_SEED` plays a run again, `CHANCERY_FUZZ_CASES` makes it longer.
 */
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'

import fc from 'fast-check'
import t from 'tap'

import { cpu } from '../helpers/cpu.ts'
import { type Answer, openTestService } from '../helpers/service.ts'
import { anyString } from '../helpers/strings.ts'
import { dns, extension, hex, mail, oid, pem, request, san, seq, uri } from '../x509/build.ts'
import { opensslRequest, rsaSigner } from '../x509/keys.ts'
import { type FuzzCase, mutated, openRandom, runCase } from './pipeline.ts'
import type { Found, Share, Slow } from './worker.ts'

const cases = Number(process.env['CHANCERY_FUZZ_CASES'] ?? (process.env['SLOW_TESTS'] === 'no' ? 25_000 : 100_000))
const seed = Number(process.env['CHANCERY_FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
const overHttp = Math.floor(cases / 20)
const structures = Math.floor(cases / 5)
t.setTimeout(600_000)
t.comment(`CHANCERY_FUZZ_SEED=${seed} CHANCERY_FUZZ_CASES=${cases}`)

const rich = [
  san(dns('host.example.com'), dns('xn--bcher-kva.example.com'), uri('https://example.com/a'), mail('a@example.com')),
  extension('2.5.29.15', hex('030205a0'), hex('0101ff')),
  extension('2.5.29.37', seq(oid('1.3.6.1.5.5.7.3.1'))),
]
/** Real requests of every family, as openssl makes them, and a few that say more. */
const corpus: readonly Buffer[] = [
  ...['P-256', 'P-384', 'P-521'].map((curve) =>
    opensslRequest('-newkey', 'ec', '-pkeyopt', `ec_paramgen_curve:${curve}`),
  ),
  ...['rsa:2048', 'rsa:3072', 'ed25519', 'ML-DSA-44', 'ML-DSA-65', 'ML-DSA-87'].map((kind) =>
    opensslRequest('-newkey', kind),
  ),
  opensslRequest(
    '-newkey',
    'rsa:2048',
    '-sha512',
    '-sigopt',
    'rsa_padding_mode:pss',
    '-sigopt',
    'rsa_pss_saltlen:digest',
  ),
  request({ signer: rsaSigner('4096') }),
  request({ signer: rsaSigner('8192') }),
  request({ extensions: rich }),
  request({ extensions: [san(...Array.from({ length: 90 }, (_, i) => dns(`n${i}.example.com`)))] }),
]

const startShare = (share: Share): Promise<Found> =>
  new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./worker.ts', import.meta.url), { workerData: share })
    worker.once('message', resolve)
    worker.once('error', reject)
    worker.once('exit', (code) => reject(new Error(`a worker ended with ${code}, for seed ${share.seed}`)))
  })

const slowest: Slow[] = []

t.test('in process: every case is allowed or a problem of the client’s', { timeout: 540_000 }, async (t) => {
  const threads = Math.max(2, Math.min(4, availableParallelism()))
  const each = (n: number): number => Math.ceil(n / threads)
  const mutations = cases - overHttp - structures
  const found = await Promise.all(
    Array.from({ length: threads }, (_, i) =>
      startShare({ seed: seed + i, mutations: each(mutations), structures: each(structures), corpus }),
    ),
  )
  const codes: Record<string, number> = {}
  for (const share of found) {
    for (const [code, n] of Object.entries(share.codes)) codes[code] = (codes[code] ?? 0) + n
    slowest.push(...share.slow)
    const { failure } = share
    if (failure) t.fail(`seed ${seed}: ${failure.what}\n${failure.contentType}: ${failure.hex}`)
  }
  t.comment(JSON.stringify(Object.fromEntries(Object.entries(codes).sort(([, a], [, b]) => b - a))))
  const total = Object.values(codes).reduce((sum, n) => sum + n, 0)
  t.ok(total >= mutations + structures, `${total} cases`)
  t.ok((codes['allowed'] ?? 0) > cases / 1000, 'some are allowed')
  const kinds = [
    'csr.der',
    'csr.pem',
    'csr.pop',
    'csr.attribute',
    'key.encoding',
    'subject.syntax',
    'san.syntax',
    'san.forbidden',
    'ext.forbidden',
  ]
  t.same(
    kinds.filter((code) => codes[code] === undefined),
    [],
    'the cases get everywhere',
  )
})

t.test('the slowest of them and the real ones, alone, hold the event loop for less than 50 ms', async (t) => {
  const asTheyAre = corpus.map((body): FuzzCase => ({ contentType: 'application/pkcs10', body }))
  const alone = [...slowest, ...asTheyAre].map((one) => ({
    one,
    milliseconds: Math.min(...[1, 2, 3].map(() => timeOf(one))),
  }))
  const [worst] = alone.sort((a, b) => b.milliseconds - a.milliseconds)
  if (worst === undefined) throw new Error('nothing was timed')
  const beside = Math.max(...slowest.map(({ milliseconds }) => milliseconds))
  t.comment(
    `worst alone: ${worst.milliseconds.toFixed(2)} ms, of ${worst.one.body.length} octets; beside the others: ${beside.toFixed(2)} ms`,
  )
  t.ok(worst.milliseconds < 50, `${worst.milliseconds} ms: ${worst.one.body.toString('hex')}`)
})

const timeOf = (one: FuzzCase): number => {
  const start = cpu()
  runCase(one)
  return cpu() - start
}

t.test(
  'over HTTP: no 5xx, nothing to be tried again, and the service still serves',
  { timeout: 540_000 },
  async (t) => {
    const service = await openTestService(t, { CHANCERY_REFUSALS_PER_MINUTE: '100000' })
    const post = (path: string, contentType: string, body: Buffer): Promise<Answer> => {
      const send = (): Promise<Answer> =>
        service.request('POST', path, { headers: { 'content-type': contentType }, body })
      // A connection that the service has ended after its thousand requests.
      return send().catch(send)
    }
    const random = openRandom(seed)
    const bodies = fc.sample(jsonAsk, { numRuns: Math.ceil(overHttp / 4), seed })
    const next = (i: number): { readonly path: string; readonly contentType: string; readonly body: Buffer } => {
      const json = i % 4 === 0 ? bodies[i / 4] : undefined
      if (json !== undefined)
        return { path: '/v1/certificates', contentType: 'application/json', body: Buffer.from(json) }
      return { path: '/v1/certificates?profile=server', ...mutated(random, corpus) }
    }
    const statuses: Record<number, number> = {}
    const codes: Record<string, number> = {}
    const look = (one: ReturnType<typeof next>, { status, json, text }: Answer): void => {
      statuses[status] = (statuses[status] ?? 0) + 1
      const good =
        status === 201 || (status >= 400 && status < 500 && json?.status === status && json.retryable === false)
      if (!good) t.fail(`seed ${seed}: ${status} ${text}\n${one.path} ${one.contentType}: ${one.body.toString('hex')}`)
      if (json?.code !== undefined) codes[json.code] = (codes[json.code] ?? 0) + 1
    }
    let started = 0
    const lane = async (): Promise<void> => {
      while (started < overHttp) {
        const one = next(started++)
        look(one, await post(one.path, one.contentType, one.body))
      }
    }
    await Promise.all(Array.from({ length: 16 }, lane))
    t.comment(JSON.stringify(statuses))
    t.equal(
      Object.values(statuses).reduce((sum, n) => sum + n, 0),
      overHttp,
    )
    t.equal((await service.request('GET', '/readyz', { token: null })).status, 200)
    const kept = new Map<string, number>()
    let cursor: string | undefined
    do {
      const { json } = await service.request(
        'GET',
        `/v1/refusals?limit=1000${cursor === undefined ? '' : `&cursor=${cursor}`}`,
      )
      for (const { code } of json.items) kept.set(code, (kept.get(code) ?? 0) + 1)
      cursor = json.next
    } while (cursor !== undefined)
    // What has not the shape of the call, or comes from who may not ask, never gets to be a request.
    const unrecorded = new Set(['request.malformed', 'auth.forbidden', 'csr.too_large'])
    const expected = Object.entries(codes).filter(([code]) => !unrecorded.has(code))
    t.same(
      expected.map(([code, n]) => [code, kept.get(code) ?? 0, n]),
      expected.map(([code, n]) => [code, n, n]),
      'every refusal is in the records, whatever it held',
    )
  },
)

const odd = fc.oneof(
  anyString({ maxLength: 30 }),
  fc.constantFrom('host.example.com', '*', '\0', '__proto__', '::1', '%00', '\ud800', '1e999'),
)
const listed = fc.oneof(
  fc.array(odd, { maxLength: 5 }),
  fc.array(
    fc.domain().map((host) => `${host}.example.com`),
    { maxLength: 5 },
  ),
)
const jsonValue = fc.oneof(odd, fc.jsonValue(), listed)
const good = pem(request())
/** JSON bodies: of the right shape with odd values, and of any shape. */
const jsonAsk: fc.Arbitrary<string> = fc.oneof(
  fc
    .record(
      {
        csr: fc.oneof({ weight: 5, arbitrary: fc.constant(good) }, { weight: 1, arbitrary: odd }),
        profile: fc.oneof(
          { weight: 5, arbitrary: fc.constantFrom('server', 'client', 'kubelet-serving') },
          { weight: 1, arbitrary: odd },
        ),
        validity: fc.oneof(fc.constantFrom('24h', '1s', '9999999999d', '0s', '90d'), odd),
        names: fc.record({ dns: listed, ip: listed, uri: listed, email: listed }, { requiredKeys: [] }),
        keyUsage: fc.oneof(fc.array(fc.constantFrom('digitalSignature', 'keyEncipherment', 'keyCertSign')), jsonValue),
        extendedKeyUsage: fc.oneof(
          fc.array(fc.constantFrom('serverAuth', 'clientAuth', '1.2.3', '2.5.29.37.0')),
          jsonValue,
        ),
      },
      { requiredKeys: ['csr', 'profile'] },
    )
    .map((body) => JSON.stringify(body)),
  fc
    .dictionary(fc.constantFrom('csr', 'profile', 'names', 'validity', 'serial', 'constructor'), jsonValue)
    .map((body) => JSON.stringify(body)),
  fc.json(),
  anyString({ maxLength: 100 }),
)
