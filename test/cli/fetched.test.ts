/** What commands fetch over plain HTTP comes from a server that may be anybody's. */
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'

import t, { type Test } from 'tap'

import { openSource } from '../../src/auditor/source.ts'
import { exitCodes } from '../../src/lib/failure.ts'
import { defaultSignatureAlgorithm } from '../../src/x509/algorithms.ts'
import { encodeCrl, encodeCrlTbs } from '../../src/x509/crl.ts'
import { encodeSubject } from '../../src/x509/subject.ts'
import { runChancery } from '../helpers/run.ts'

const openStranger = async (t: Test, listener: RequestListener): Promise<string> => {
  const server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** A megabyte after the other, as long as somebody takes them. */
const endless: RequestListener = (_request, response) => {
  const piece = Buffer.alloc(1024 * 1024)
  const send = (): void => void response.write(piece, (error) => error ?? send())
  send()
}

const signature = defaultSignatureAlgorithm('ed25519')
const listAt = (url: string): Buffer => {
  const tbs = encodeCrlTbs({
    signature,
    issuer: encodeSubject([{ type: 'commonName', value: 'Example Root' }]),
    thisUpdate: new Date('2026-11-30T00:00:00Z'),
    nextUpdate: new Date('2026-12-30T00:00:00Z'),
    revoked: [],
    authorityKeyIdentifier: Buffer.alloc(20, 1),
    number: 7n,
    distributionPoint: { url },
  })
  return encodeCrl(tbs, signature, Buffer.alloc(64, 2))
}

t.test('a list cannot steer the terminal that shows where it is from, nor write lines of its own', async (t) => {
  const list = listAt('http://x/\u001b]0;y\u0007\u009b31m\nnumber                  999')
  const url = await openStranger(t, (_request, response) => response.end(list))
  const { code, out } = await runChancery(['crl', 'inspect', `${url}/x.crl`])
  t.equal(code, 0)
  t.match(out, /^distributionPoint +http:\/\/x\/\\u001b\]0;y\\u0007\\u009b31m\\u000anumber +999$/m)
  t.same(out.match(/^number .*$/gm), ['number                  7'])
})

t.test('an answer without an end is given up, and not held', async (t) => {
  const url = await openStranger(t, endless)
  const told = /http:\/\/127\.0\.0\.1:\d+\/\S+ answers with more than 67108864 octets\./
  t.match(await runChancery(['crl', 'inspect', `${url}/x.crl`]), { code: exitCodes.failed, err: told })
  await t.rejects((await openSource(url, { anonymous: true })).read('checkpoint'), { kind: 'failed', message: told })
})
