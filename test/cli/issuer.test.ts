/** A key that waits for its certificate: it is shown, its request can be had again, and what comes too early says what comes first. */
import { createPrivateKey, generateKeyPairSync } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { encodeRootCrlTbs, seal } from '../../src/ca/issuers/ceremony.ts'
import { exitCodes } from '../../src/lib/failure.ts'
import { parsePem } from '../../src/x509/pem.ts'
import { openTestRoot } from '../helpers/ceremony.ts'
import { chanceryFor } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { employ } from '../http/people.ts'

t.test('from a request to an issuer', async (t) => {
  const service = await openTestService(t)
  const chancery = chanceryFor(service)
  const folder = await mkdtemp(join(tmpdir(), 'chancery-issuer-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const made = await chancery(['issuer', 'create', 'next', '--authority', 'default', '--subject', 'CN=Next'])
  t.match(made, { code: 0, out: /^-----BEGIN CERTIFICATE REQUEST-----\n/, err: /^$/ })
  t.match((await chancery(['issuer', 'list'])).out, /^next +default +requested +- +20\S+Z +-$/m)
  const asJson = JSON.parse((await chancery(['issuer', 'list', '--json'])).out)
  t.match(asJson.at(-1), { name: 'next', state: 'requested', csr: made.out, createdBy: 'admin' })
  t.same(await chancery(['issuer', 'csr', 'next']), made)
  t.match(await chancery(['issuer', 'csr', 'nobody']), { code: exitCodes.missing, err: /called "nobody"\.$/m })

  for (const move of ['activate', 'discard', 'retire']) {
    const early = await chancery(['issuer', move, 'next'])
    t.equal(early.code, exitCodes.conflict, move)
    t.match(early.err, /^The issuer next is requested: .* certificate, which must be imported first\. .*issuer\.state/)
  }
  t.match(await chancery(['issuer', 'activate', 'nobody']), { code: exitCodes.missing, err: /issuer\.not_found/ })

  const token = await employ(service, 'ci', 'requester', { profiles: ['server'] })
  const seen = await chancery(['issuer', 'list'], { CHANCERY_TOKEN: token })
  t.match(seen, { code: 0, err: /^$/ }, 'whoever may not see requests sees the issuers')
  t.notMatch(seen.out, /next/)

  const root = openTestRoot()
  const key = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' })
  await writeFile(join(folder, 'chain.pem'), `${root.certify(made.out)}${root.pem}${key}`)
  await writeFile(join(folder, 'key.der'), createPrivateKey(key).export({ type: 'pkcs8', format: 'der' }))
  t.match(await chancery(['issuer', 'import', 'next', join(folder, 'key.der')]), {
    code: exitCodes.usage,
    err: /key\.der is not in PEM, and may be a key; nothing was sent\. Give the chain in PEM\.\n$/,
  })
  await writeFile(join(folder, 'chain.p7b'), Buffer.from('308206a306092a864886f70d010702a08206', 'hex'))
  t.match(await chancery(['issuer', 'import', 'next', join(folder, 'chain.p7b')]), {
    code: exitCodes.usage,
    err: /chain\.p7b: it is PKCS#7, .*: openssl pkcs7 -in FILE .* that of its issuer\. Nothing was sent\.\n$/,
  })
  for (const verb of ['import', 'chains'])
    t.match(await chancery(['issuer', verb, 'next', join(folder, 'chain.pem')]), {
      code: exitCodes.usage,
      err: /chain\.pem holds a private key; nothing was sent\. Give the chain alone\.\n$/,
    })
  await writeFile(join(folder, 'chain.pem'), root.certify(made.out) + root.pem)
  const into = (lists: string) => chancery(['issuer', 'import', 'next', join(folder, 'chain.pem'), '--shards', lists])
  for (const lists of ['0', '1.5', 'one'])
    t.match(await into(lists), { code: exitCodes.usage, err: /is not a whole number within 1 and/ }, lists)
  t.match(await into('1025'), { code: exitCodes.refused, err: /\/shards/ }, 'the service knows the bound')
  t.equal((await into('1')).code, 0)
  t.match(await chancery(['issuer', 'import', 'next', join(folder, 'chain.pem')]), {
    code: exitCodes.conflict,
    err: /is staged\. It has one list for good/,
  })
  const shown = JSON.parse((await chancery(['issuer', 'list', '--json'])).out)
  t.match(shown.at(-1), { name: 'next', shards: 1 })
  const listed = (await chancery(['issuer', 'list'])).out
  t.match(listed, /^next +default +staged +1 +20\S+Z +20\S+Z$/m, 'until when its certificate is valid')
  t.match(listed, /^default .* 128 +20/m)
  t.notMatch(listed, /requested/)

  const now = Math.floor(Date.now() / 1000) * 1000
  const list = { number: 1n, thisUpdate: new Date(now), nextUpdate: new Date(now + 86_400_000), revoked: [] }
  const tbs = encodeRootCrlTbs(root.key, parsePem(root.pem, 'CERTIFICATE'), list)
  await writeFile(join(folder, 'root.crl'), await seal(root.key, tbs))
  t.match(await chancery(['crl', 'import', 'next', join(folder, 'root.crl')]), {
    code: 0,
    out: /^List 1 is kept; it may be used until 20\S+Z\.\nWhoever checks next is not led to it: its certificate says no URL\.\n$/,
  })
})
