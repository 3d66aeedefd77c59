/**
 * What strangers send, and what each case gets: the rows of the project's table of hostile input, variant by variant, but for
 * those that need other requests before them (`test/http/hostile.test.ts`, `certificates.test.ts` and `revocation.test.ts`).
 * `test/x509/hostile.test.ts` puts them through the parsers; the HTTP tests send them to the real service, under the
 * profile `server`.
 */
import { encoding } from '../x509/hostile/encoding.ts'
import { keying } from '../x509/hostile/keying.ts'
import { naming } from '../x509/hostile/naming.ts'
import { reading } from '../x509/hostile/reading.ts'
import { shape } from '../x509/hostile/shape.ts'

export type { HostileCase } from '../x509/hostile/case.ts'

export const hostileCases = [...reading, ...encoding, ...shape, ...naming, ...keying]
