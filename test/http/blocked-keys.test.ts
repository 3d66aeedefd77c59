/** Keys that nobody gets a certificate for, whoever asks: those of our own issuers, and those that settings list. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { blockListHash } from '../../src/x509/block-list.ts'
import { parseRequest } from '../../src/x509/csr.ts'
import { encodePem } from '../../src/x509/pem.ts'
import { encodeRequestInfo, sealRequest } from '../../src/x509/request.ts'
import { named, openTestRoot } from '../helpers/ceremony.ts'
import { openInlineKeys } from '../helpers/keys.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { pem } from '../x509/build.ts'
import { csrFor, derFor } from './people.ts'

const folder = t.testdir()

/** All ways to ask for a certificate end in the same word. */
const outcomes = async (service: TestService, csr: string): Promise<readonly unknown[]> => {
  const asked = { csr, profile: 'server' }
  const batch = await service.request('POST', '/v1/certificates/batch', { body: { items: [asked] } })
  return [
    (await service.request('POST', '/v1/certificates', { body: asked })).json.code,
    (await service.request('POST', '/v1/certificates?dryRun=true', { body: asked })).json.code,
    batch.json.items[0].problem?.code,
  ]
}
const blocked = ['key.blocked', 'key.blocked', 'key.blocked']

slowTest('the key of an issuer of any authority, in any state, is never a subject’s', async (t) => {
  const service = await openTestService(t, { CHANCERY_STAGING_TIME: '0s' })
  const [keys, root] = [await openInlineKeys(service.config), openTestRoot()]
  const csrBy = async (issuer: string): Promise<string> => {
    const key = await keys.open(`file:keys/${issuer}.pem`)
    const info = encodeRequestInfo({ subject: [], names: [{ kind: 'dns', value: 'www.example.com' }], spki: key.spki })
    const [signature] = await key.sign([info])
    await key.close()
    return encodePem('CERTIFICATE REQUEST', sealRequest(info, key.algorithm, signature as Buffer))
  }
  for (const issuer of ['default', 'etcd']) t.same(await outcomes(service, await csrBy(issuer)), blocked, issuer)
  const body = { name: 'next', authority: 'etcd', subject: named('Next') }
  const { csr } = (await service.request('POST', '/v1/issuer-requests', { body })).json
  await service.request('PUT', '/v1/issuers/next', { body: { chain: root.certify(csr) + root.pem } })
  t.same(await outcomes(service, await csrBy('next')), blocked, 'one that is staged')
  await service.request('POST', '/v1/issuers/next/moves', { body: { move: 'discard' } })
  t.same(await outcomes(service, await csrBy('next')), blocked, 'one that has retired')
})

t.test('nor is one that a list names', async (t) => {
  const [own, known] = [derFor('own.example.com'), derFor('known.example.com')]
  const files = { own: join(folder, 'own'), known: join(folder, 'known') }
  await writeFile(files.own, `${parseRequest(own).key.sha256.toString('hex')} # was on a laptop\n`)
  await writeFile(files.known, Buffer.concat([blockListHash(parseRequest(known).key), Buffer.from([1])]))
  const service = await openTestService(t, { CHANCERY_BLOCKED_KEYS: files.own, CHANCERY_BADKEYS_LIST: files.known })
  t.same(await outcomes(service, pem(own)), blocked, 'of our own')
  t.same(await outcomes(service, pem(known)), blocked, 'of badkeys')
  t.same(await outcomes(service, csrFor('sound.example.com')), [undefined, undefined, undefined])
})
