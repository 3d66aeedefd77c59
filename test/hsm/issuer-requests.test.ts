/** Keys of new issuers in a real SoftHSM: what can't be had is told for what it is. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

import { named } from '../helpers/ceremony.ts'
import { openTestService } from '../helpers/service.ts'
import { openSoftHsm } from './softhsm.ts'

t.test('a key in a token', async (t) => {
  const hsm = await openSoftHsm(t)
  const settings = {
    CHANCERY_PKCS11_MODULE: hsm.module,
    CHANCERY_PKCS11_PIN_FILE: hsm.pinFile,
    CHANCERY_ROLL_KEY: 'pkcs11:token=ca;object=roll',
    ...hsm.env,
  }
  const service = await openTestService(t, settings)
  const ask = (name: string, uri: string, more: object = {}) =>
    service.request('POST', '/v1/issuer-requests', {
      body: { name, authority: 'default', subject: named(name), key: `pkcs11:${uri}`, ...more },
    })

  t.test('is one issuer, however its URI is written', async (t) => {
    t.equal((await ask('one', 'token=ca;object=k')).status, 201)
    for (const uri of ['object=k;token=ca', 'token=ca;object=k;type=private'])
      t.match((await ask('two', uri)).json, { code: 'state.exists', status: 409, retryable: false }, uri)
  })

  t.test('is made once, when it is asked for three times at once', async (t) => {
    const answers = await Promise.all([1, 2, 3].map(() => ask('same', 'token=ca;object=same')))
    t.same(answers.map(({ status }) => status).sort(), [201, 409, 409])
    t.same(answers.map(({ json }) => json.code).sort(), ['state.exists', 'state.exists', undefined])
  })

  t.test('is made once, when two instances are asked for it at the same time', async (t) => {
    const beside = await openTestService(t, settings, service)
    const headers = { authorization: `Bearer ${service.adminToken}`, 'content-type': 'application/json' }
    const answers = await Promise.all(
      [service, beside].map(async ({ service: { app } }, i) => {
        const asked = {
          name: `of-${i}`,
          authority: 'default',
          subject: named(`of-${i}`),
          key: 'pkcs11:token=ca;object=two',
        }
        const payload = JSON.stringify({ ...asked, algorithm: 'rsa-3072' })
        return (await app.inject({ method: 'POST', url: '/v1/issuer-requests', headers, payload })).statusCode
      }),
    )
    t.same(answers.sort(), [201, 409])
    t.equal(
      (await hsm.tool('--list-objects', '--type', 'privkey', '--label', 'two')).match(/^Private Key/gm)?.length,
      1,
    )
  })

  t.test('of a type that the token does not have is refused, not put off', async (t) => {
    const { json } = await ask('pq', 'token=ca;object=pq', { algorithm: 'ml-dsa-65' })
    t.match(json, {
      code: 'issuer.token',
      status: 422,
      retryable: false,
      detail: /cannot make a key of type ml-dsa-65/,
    })
  })

  t.test('is of RSA with as many bits as were asked for', async (t) => {
    t.equal((await ask('big', 'token=ca;object=big', { algorithm: 'rsa-4096' })).status, 201)
    t.match(await hsm.tool('--list-objects', '--type', 'pubkey', '--label', 'big'), /RSA 4096 bits/)
  })

  t.test('that is there and cannot be taken is refused with the reason', async (t) => {
    await hsm.tool('--keypairgen', '--key-type', 'EC:prime256v1', '--label', 'open', '--id', '03', '--extractable')
    const { json } = await ask('open', 'token=ca;object=open')
    t.match(json, { code: 'state.exists', detail: /a key open already.* Nor is it taken: .*extractable is true/ })
  })

  t.test('of the roll is no issuer’s', async (t) => {
    const { status, json } = await ask('roll', 'token=ca;object=roll', { algorithm: 'ed25519' })
    t.match(
      { status, json },
      { status: 409, json: { code: 'state.exists', detail: /which signs the roll, and nothing else/ } },
    )
    t.notOk(JSON.stringify((await service.request('GET', '/v1/issuer-requests')).json).includes('object=roll'))
  })

  t.test('whose PIN is nowhere is refused, though the token is open', async (t) => {
    const world = join(hsm.folder, 'world')
    await writeFile(world, '1234\n', { mode: 0o644 })
    for (const path of ['/nowhere/pin', world]) {
      const { json } = await ask('pin', `token=ca;object=pin?pin-source=file:${path}`)
      t.match(json, { code: 'issuer.token', status: 422 }, path)
    }
    t.equal((await ask('pin', `token=ca;object=pin?pin-source=file:${hsm.pinFile}`)).status, 201)
  })

  t.test('is not named by what its vendor may change', async (t) => {
    for (const more of ['manufacturer=SoftHSM%20project', 'model=SoftHSM%20v2'])
      t.match((await ask('vendor', `token=ca;${more};object=vendor`)).json, {
        code: 'request.malformed',
        detail: /^\/key: .* name the token by token= and serial= alone\.$/,
      })
  })

  t.test('of a token that is away is put off', async (t) => {
    t.match((await ask('away', 'token=other;object=x')).json, { retryable: true, status: 503 })
  })
})
