/** Stores over the database of a whole service: a second replica, as far as the records are concerned. */
import type { Test } from 'tap'

import type { Caller } from '../../src/ca/access/access.ts'
import type { Issued } from '../../src/ca/issuance/issuance.ts'
import { openStores, type Stores } from '../../src/server/stores.ts'
import { type NameKind, parseName } from '../../src/x509/names.ts'
import { quiet } from '../helpers/log.ts'
import { openTestService, type TestService } from '../helpers/service.ts'
import { commonName, newP256, p256, request, tlv } from '../x509/build.ts'

export interface TestStores {
  readonly service: TestService
  readonly stores: Stores
  /** Another replica. */
  open(clock?: () => Date): Promise<Stores>
  /** Issues for names as `dns:www.example.com`, under a profile that allows all, as the administrator. */
  issue(names: readonly string[], more?: { readonly subject?: string; readonly principal?: string }): Promise<Issued>
}

/** `env` and `beside` as for `openTestService`. */
export const openTestStores = async (
  t: Test,
  env: Readonly<Record<string, string>> = {},
  beside?: Pick<TestService, 'config' | 'database'>,
): Promise<TestStores> => {
  const service = await openTestService(t, { CHANCERY_REFUSALS_PER_MINUTE: '10000', ...env }, beside)
  const open = async (clock?: () => Date): Promise<Stores> => {
    const { config, database } = service
    const stores = await openStores({ config, databaseUrl: database.servingUrl, log: quiet, ...(clock && { clock }) })
    t.teardown(async () => {
      stores.policies.close()
      await stores.db.close()
    })
    return stores
  }
  const headers = { 'if-none-match': '*' }
  const made = await service.request('PUT', '/v1/profiles/all', { headers, body: allowAll })
  if (made.status !== 201) throw new Error(made.text)
  const issue: TestStores['issue'] = (names, { subject, principal = 'admin' } = {}) =>
    service.service.issuance.issue(callerOf(principal), {
      csr: request({
        attributes: tlv(0xa0),
        // One key is certified for one principal.
        signer: principal === 'admin' ? p256() : newP256(),
        ...(subject !== undefined && { subject: commonName(subject) }),
      }),
      profile: 'all',
      names: names.map((text) => {
        const colon = text.indexOf(':')
        return parseName(text.slice(0, colon) as NameKind, text.slice(colon + 1))
      }),
    })
  // Lists have their events as well: those of the start are made before anything is counted.
  await service.service.publishCrls()
  return { service, stores: await open(), open, issue }
}

const callerOf = (principal: string): Caller => ({
  principal,
  proof: { kind: 'own' },
  grants: [
    {
      id: 'test',
      principal,
      role: 'requester',
      profiles: ['all'],
      names: null,
      revoke: false,
      createdAt: new Date(),
      createdBy: 'test',
    },
  ],
})

export const allowAll = {
  name: 'all',
  authority: 'default',
  validity: { default: '1h', max: '30d' },
  keys: [{ ec: ['P-256'] }],
  subject: { commonName: { from: 'csr', match: '*', required: false }, others: 'drop' },
  names: {
    dns: { allow: ['**'], wildcards: true, underscores: true },
    ip: { allow: ['0.0.0.0/0', '::/0'] },
    uri: { allow: ['spiffe://example.com/**'], max: 1 },
    email: { allow: ['*@example.com'] },
  },
  keyUsage: ['digitalSignature'],
  extendedKeyUsage: ['serverAuth'],
  revocation: ['crl', 'ocsp'],
}
