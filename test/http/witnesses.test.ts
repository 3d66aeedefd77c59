/** A service with two witnesses that are processes of their own as far as it can tell. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { readWitnessSettings, serveWitness } from '../../src/cli/witness.ts'
import { readStanding } from '../../src/db/log-opening.ts'
import { openCheckpoint } from '../../src/tlog/checkpoint.ts'
import { parseVerifierKey } from '../../src/tlog/note.ts'
import { quiet } from '../helpers/log.ts'
import { freePort } from '../helpers/port.ts'
import { openReplica } from '../helpers/replica.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { sha256, verifyEd25519 } from '../tlog/hashing.ts'
import { csrFor } from './people.ts'

const folder = await mkdtemp(join(tmpdir(), 'chancery-witnesses-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
const replica = await openReplica(t)
const rollKey = (await readStanding(replica.stores.db)).opened?.key as string
const ports = [await freePort(), await freePort()]
const startWitness = async (i: 0 | 1) => {
  const path = join(folder, `w${i}.yaml`)
  const text = `name: w${i}.example\nlisten: 127.0.0.1:${ports[i]}\nkey: w${i}.key\nstate: w${i}.state\nlogs: ["${rollKey}"]\n`
  await writeFile(path, text)
  return serveWitness(await readWitnessSettings(path), quiet)
}
let first = await startWitness(0)
const second = await startWitness(1)
t.teardown(async () => {
  await first.close()
  await second.close()
})
const service = await openTestService(
  t,
  { CHANCERY_ROLL_WITNESSES: [first, second].map(({ key, url }) => `${key} ${url}/`).join(', ') },
  replica,
)
const witnesses = [first, second].map(({ key }) => parseVerifierKey(key, sha256))
const shown = async () => {
  const { text } = await service.request('GET', '/roll/checkpoint')
  return openCheckpoint(text, { roll: [parseVerifierKey(rollKey, sha256)], witnesses }, verifyEd25519)
}
const rollCheck = async () =>
  (await service.request('GET', '/readyz')).json.checks.find(({ name }: { name: string }) => name === 'roll')

t.test('a service asks its witnesses by itself, as soon as it runs', async (t) => {
  while ((await shown()).cosignatures.length < 2) await sleep(10)
  t.equal((await shown()).cosignatures.length, 2)
})

t.test('the checkpoint comes with cosignatures, and never goes back', async (t) => {
  await service.service.askWitnesses()
  const { size, cosignatures } = await shown()
  t.equal(cosignatures.length, 2)
  await service.request('POST', '/v1/certificates', { body: { csr: csrFor('web.example.com'), profile: 'server' } })
  t.ok((await shown()).size >= size)
  await service.service.askWitnesses()
  const next = await shown()
  t.ok(next.size > size)
  t.equal(next.cosignatures.length, 2)
  const { text } = await service.request('GET', '/metrics')
  t.match(text, /chancery_witness_cosigned_timestamp_seconds\{witness="w0\.example"\} 1\d{9}/)
  t.match(text, /chancery_witness_failures_total\{witness="w1\.example"\} 0/)
  t.match(text, /chancery_witness_disagrees\{witness="w1\.example"\} 0/)
})

slowTest('a witness that has seen another roll is a warning, and no end', async (t) => {
  await first.close()
  const state = join(folder, 'w0.state')
  await writeFile(
    state,
    (await readFile(state, 'utf8')).replace(
      /\n(\d+)\n.*\n/,
      (_, size) => `\n${size}\n${Buffer.alloc(32, 7).toString('base64')}\n`,
    ),
  )
  first = await startWitness(0)
  await service.service.askWitnesses()
  // What the metrics have just asked for is remembered for a moment.
  let found = await rollCheck()
  for (; found.reason === 'is whole, and its checkpoints are signed'; found = await rollCheck()) await sleep(100)
  t.match(found, { ok: true, reason: /another roll of ours was seen by w0\.example/ })
  t.equal((await service.request('GET', '/readyz')).status, 200)
  const body = { csr: csrFor('web.example.com'), profile: 'server' }
  t.equal((await service.request('POST', '/v1/certificates', { body })).status, 201)
  t.match(
    (await service.request('GET', '/metrics')).text,
    /chancery_witness_failures_total\{witness="w0\.example"\} [1-9][\s\S]*chancery_witness_disagrees\{witness="w0\.example"\} 1/,
  )
})
