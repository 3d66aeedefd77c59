/** Certificates of the service in the hands of a test: with their keys, to be shown over mutual TLS. */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'

import { connect, type TestConnection } from '../helpers/clients.ts'
import type { Answer, RequestOptions, TestService } from '../helpers/service.ts'
import { dns, pem, request, san, signerOf, tlv } from '../x509/build.ts'

export interface TestHolder {
  readonly serial: string
  /** PEM: with its chain, as servers and clients show it. */
  readonly cert: string
  readonly leaf: string
  readonly key: string
}

interface Teardown {
  teardown(close: () => void): void
}

export const newKey = (): KeyObject => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey

/** PEM of a request on this key for these DNS names; without any, it has no extension. */
export const csrOn = (key: KeyObject, names: readonly string[] = [], subject?: Buffer): string => {
  const spki = createPublicKey(key).export({ type: 'spki', format: 'der' })
  return pem(
    request({
      signer: signerOf(key, spki),
      ...(subject && { subject }),
      ...(names.length > 0 ? { extensions: [san(...names.map(dns))] } : { attributes: tlv(0xa0) }),
    }),
  )
}

export const openHoldersOf = (service: TestService) => {
  /** Issues one, to whomever the token is of. */
  const issue = async (
    names: readonly string[],
    { profile = 'server', token = service.adminToken, key = newKey(), ...more }: IssueParts = {},
  ): Promise<TestHolder> => {
    const body = { csr: csrOn(key, names), profile, ...more }
    return holderOf(await service.request('POST', '/v1/certificates', { token, body }), key)
  }
  const hold = (t: Teardown, client: Pick<TestHolder, 'cert' | 'key'>): TestConnection => {
    const connection = connect(service, { client })
    t.teardown(connection.close)
    return connection
  }
  /** Renews it over a connection of its own. */
  const renew = (
    t: Teardown,
    holder: TestHolder,
    body: unknown = { csr: csrOn(newKey()) },
    options: RequestOptions = {},
  ): Promise<Answer> =>
    hold(t, holder).request('POST', `/v1/certificates/${holder.serial}/renewal`, { token: null, body, ...options })
  /** Changes what a profile says. */
  const change = async (profile: string, changes: object): Promise<void> => {
    const { json, headers } = await service.request('GET', `/v1/profiles/${profile}`)
    const body = JSON.parse(JSON.stringify({ ...json.document, ...changes }))
    const ifMatch = { 'if-match': String(headers['etag']) }
    const { status, text } = await service.request('PUT', `/v1/profiles/${profile}`, { headers: ifMatch, body })
    if (status >= 300) throw new Error(text)
  }
  return { issue, hold, renew, change }
}

interface IssueParts {
  readonly profile?: string
  readonly token?: string
  readonly key?: KeyObject
  readonly validity?: string
}

export const holderOf = ({ status, text, json }: Answer, key: KeyObject): TestHolder => {
  if (status !== 201) throw new Error(text)
  const pkcs8 = key.export({ type: 'pkcs8', format: 'pem' }) as string
  const { serial, certificate, chain } = json
  return { serial, leaf: certificate, cert: [certificate, ...chain].join(''), key: pkcs8 }
}

export const keyOf = ({ key }: TestHolder): KeyObject => createPrivateKey(key)
