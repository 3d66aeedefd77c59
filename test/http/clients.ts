/** A service that trusts a CA of clients, and what tests of its clients do. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import type { Test } from 'tap'

import { type ConnectionOptions, connect, openClientCa, type TestConnection } from '../helpers/clients.ts'
import { openTestService, type TestService } from '../helpers/service.ts'

interface Teardown {
  teardown(close: () => void): void
}

export const openClients = async (t: Test) => {
  const ca = openClientCa('Clients of the tests')
  const folder = await mkdtemp(join(tmpdir(), 'chancery-clients-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const file = join(folder, 'clients.pem')
  await writeFile(file, ca.pem)
  const service = await openTestService(t, { CHANCERY_CLIENT_AUTHORITIES: 'default', CHANCERY_CLIENT_CA: file })

  /** Makes a principal with a role, and ties to it what `match` says; resolves to the credential. */
  const tie = async (principal: string, match: object, role = 'auditor'): Promise<string> => {
    await service.request('POST', '/v1/principals', { body: { name: principal } })
    await service.request('POST', '/v1/grants', { body: { principal, role } })
    const made = await service.request('POST', '/v1/credentials', { body: { principal, label: 'test', ...match } })
    if (made.status !== 201) throw new Error(made.text)
    return made.json.id
  }

  const open = (t: Teardown, options: ConnectionOptions, to: TestService = service): TestConnection => {
    const connection = connect(to, options)
    t.teardown(connection.close)
    return connection
  }

  /** What the service says to one request of a client with this certificate. */
  const ask = async (t: Teardown, client: ConnectionOptions['client']): Promise<string> => {
    const { status, json } = await open(t, { client }).request('GET', '/v1/authorities')
    return status === 200 ? 'in' : json.code
  }

  return { ca, folder, file, service, tie, open, ask }
}
