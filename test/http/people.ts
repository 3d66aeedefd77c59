/** Principals with tokens, made as an administrator makes them: over the API. */
import type { Role } from '../../src/ca/access/access.ts'
import type { Limits } from '../../src/policy/limits.ts'
import type { OriginRules } from '../../src/policy/origin.ts'
import type { TestService } from '../helpers/service.ts'
import { dns, newP256, pem, request, san } from '../x509/build.ts'

/** Makes a principal with one grant, and resolves to its token. */
export const employ = async (
  service: TestService,
  name: string,
  role: Role,
  more: {
    readonly profiles?: readonly string[]
    readonly names?: object
    readonly revoke?: boolean
    readonly limits?: Limits
    readonly onBehalfOf?: OriginRules
    readonly sharedKeys?: boolean
  } = {},
): Promise<string> => {
  await service.request('POST', '/v1/principals', { body: { name } })
  await service.request('POST', '/v1/grants', { body: { principal: name, role, ...more } })
  const made = await service.request('POST', '/v1/tokens', { body: { principal: name, label: 'test' } })
  return made.json.secret
}

/** A good request for these DNS names, on a P-256 key of its own. */
export const csrFor = (...names: readonly string[]): string => pem(derFor(...names))
export const derFor = (...names: readonly string[]): Buffer =>
  request({ signer: newP256(), extensions: [san(...names.map(dns))] })
