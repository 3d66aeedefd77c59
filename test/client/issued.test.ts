/** A server that answers with the certificate of something else: nothing of it is written, and what is there stays. */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { obtain, type Task } from '../../src/client/issue/ensure.ts'
import { assertLeadsTo, type IssuedAnswer } from '../../src/client/issue/issued.ts'
import { readTask } from '../../src/client/issue/new-certificate.ts'
import type { Answer } from '../../src/client/rejected.ts'
import { type Client, openClient } from '../../src/client/rest.ts'
import { openClientCa } from '../helpers/clients.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { csrFor } from '../http/people.ts'
import { newFolder, readShown } from './folders.ts'

t.setTimeout(300_000)
const service = await openTestService(t)
const client = await openClient({ server: service.url }, { CHANCERY_DATA: service.config.dataDir })
const stranger = openClientCa('A CA that nobody knows')

const taskFor = async (out: string, more: Partial<Task> = {}): Promise<Task> => ({
  ...(await readTask({ profile: 'server', name: ['answered.example.com'], out }, client.origin)),
  renews: false,
  isDue: () => true,
  isSpent: () => false,
  ...more,
})

interface Changes {
  readonly issued?: (answer: IssuedAnswer) => object | null
  readonly roots?: string
}

const lying = (inner: Client, { issued = (answer) => answer, roots }: Changes): Client => ({
  ...inner,
  as: (identity) => lying(inner.as(identity), { issued, ...(roots !== undefined && { roots }) }),
  call: async (method, path, call): Promise<Answer> => {
    const answer = await inner.call(method, path, call)
    if (path.endsWith('/bundle')) return { ...answer, text: roots ?? answer.text }
    const told = method === 'POST' ? issued(answer.json<IssuedAnswer>()) : answer.json<object>()
    return { ...answer, json: <T>() => told as T }
  },
})

const other = (
  await service.request('POST', '/v1/certificates', {
    body: { csr: csrFor('other.example.com'), profile: 'server' },
  })
).json as IssuedAnswer
const unknown = stranger.certify().cert

const lies: readonly (readonly [what: string, changes: Changes, sentence: RegExp])[] = [
  ['nothing', { issued: () => null }, /no certificate/],
  ['no certificate', { issued: (answer) => ({ ...answer, certificate: 7 }) }, /no certificate/],
  ['junk', { issued: (answer) => ({ ...answer, certificate: '-----BEGIN' }) }, /no certificate/],
  ['something after it', { issued: (answer) => ({ ...answer, certificate: `${answer.certificate}x` }) }, /no cert/],
  ['two in one', { issued: (answer) => ({ ...answer, certificate: answer.certificate + unknown }) }, /no certificate/],
  ['a key above it', { issued: (answer) => ({ ...answer, chain: ['-----BEGIN PRIVATE KEY-----'] }) }, /no certificate/],
  ['notes that are none', { issued: (answer) => ({ ...answer, notes: [null] }) }, /no certificate/],
  ['another serial', { issued: (answer) => ({ ...answer, serial: other.serial }) }, /of another serial/],
  ['a way out', { issued: (answer) => ({ ...answer, serial: '../../issuers' }) }, /of another serial/],
  ['another time', { issued: (answer) => ({ ...answer, notAfter: '2099-01-01T00:00:00Z' }) }, /of another time/],
  ['the certificate of another key', { issued: () => other }, /of another key/],
  ['nothing above it', { issued: (answer) => ({ ...answer, chain: [] }) }, /does not lead to the roots/],
  ['something else above it', { issued: (answer) => ({ ...answer, chain: [stranger.pem] }) }, /does not lead to/],
  ['a crowd above it', { issued: (answer) => ({ ...answer, chain: Array(100).fill(unknown) }) }, /does not lead to/],
  ['other roots', { roots: stranger.pem }, /does not lead to the roots/],
  ['roots that are a page', { roots: '<p>Log in first</p>' }, /no certificate/],
  ['no roots', { roots: '' }, /no certificate/],
]

slowTest('the first certificate', async (t) => {
  const out = await newFolder(t)
  for (const [what, changes, sentence] of lies) {
    const message = new RegExp(`^The server answered with .*${sentence.source}.*; nothing was written\\.$`)
    await t.rejects(obtain(await taskFor(out), lying(client, changes)), { kind: 'failed', message }, what)
    t.equal(await readShown(out), undefined, what)
    t.same(await readdir(join(out, '.chancery')), ['pending.json', 'versions'])
  }
  // As one that is replayed for ever, and would have been spent by a clock that is far ahead.
  const spent = lying(client, { issued: (answer) => ({ ...answer, replayed: true }) })
  t.ok((await obtain(await taskFor(out, { isSpent: () => true }), spent)).issued, 'nor is it asked for for ever')
  await t.rejects(obtain(await taskFor(out), lying(client, { issued: () => null })), /no certificate/)
  const { issued } = await obtain(await taskFor(out), client)
  t.equal(issued?.replayed, true, 'and an honest answer is the one that all of them had')
})

t.test('one that takes the place of another', async (t) => {
  const out = await newFolder(t)
  const first = await obtain(await taskFor(out), client)
  const files = await readFile(join(out, 'fullchain.pem'), 'utf8')
  const { issued } = first
  const task = await taskFor(out, { renews: true, reuseKey: true })
  const same = lying(client, { issued: () => issued as IssuedAnswer })
  await t.rejects(obtain(task, same), { kind: 'failed', message: /the certificate that is to be replaced/ })
  for (const [what, changes] of lies)
    await t.rejects(obtain(task, lying(client, changes)), { kind: 'failed', message: /nothing was written/ }, what)
  t.equal(await readFile(join(out, 'fullchain.pem'), 'utf8'), files)
  t.ok(await readShown(out))
})

t.test('one leads to the roots by the signatures from it upwards, whatever lies beside them', async (t) => {
  const { text: roots } = await client.call('GET', `/v1/certificates/${other.serial}/bundle`, {
    ...{ query: { anchors: 'roots' }, accept: 'application/x-pem-file' },
  })
  t.doesNotThrow(() => assertLeadsTo(other, stranger.pem + roots), 'to one of several, while they are replaced')
  const forged = stranger.certify({ forged: true }).cert
  for (const [what, changes, anchors] of [
    ['issuers that have not signed it', { certificate: unknown }, roots],
    ['one that signs itself', { certificate: unknown, chain: [stranger.pem] }, roots],
    ['an issuer whose signature it has not', { certificate: forged, chain: [] }, stranger.pem],
  ] as const)
    t.throws(() => assertLeadsTo({ ...other, ...changes }, anchors), { message: /does not lead to the roots/ }, what)
})
