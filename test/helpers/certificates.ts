/** Certificates that a test asks for, and revokes, as the first administrator. */
import { csrFor } from '../http/people.ts'
import type { TestService } from './service.ts'

export interface Issued {
  readonly serial: string
  readonly certificate: string
  readonly chain: readonly string[]
  readonly issuer: string
}

type Service = Pick<TestService, 'request'>

/** One for a new key. `more` is what is asked for besides. */
export const issueAt = async (
  service: Service,
  {
    name = 'web.example.com',
    profile = 'server',
    ...more
  }: { readonly name?: string; readonly profile?: string; readonly validity?: string } = {},
): Promise<Issued> => {
  const body = { csr: csrFor(name), profile, ...more }
  const { status, json, text } = await service.request('POST', '/v1/certificates', { body })
  if (status !== 201) throw new Error(text)
  return json
}

export const revokeAt = async (service: Service, serial: string, body: object = superseded): Promise<void> => {
  const { status, text } = await service.request('POST', `/v1/certificates/${serial}/revocation`, { body })
  if (status !== 200) throw new Error(text)
}

const superseded = { reason: 'superseded' }
