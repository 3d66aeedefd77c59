/** What we answer over OCSP, read as strictly as requests are: in the form in which it is written, and no other. */
import type { ProblemCode } from '../../src/errors.ts'
import { readSignatureAlgorithm, type SignatureAlgorithm } from '../../src/x509/algorithms.ts'
import type { CrlReason } from '../../src/x509/crl.ts'
import { DerReader, derProblem, newBudget, oidKey, tags, type WalkBudget, walk } from '../../src/x509/der.ts'
import {
  type CertId,
  type CertStatus,
  hashes,
  type OcspError,
  ocspErrors,
  ocspOids,
  reasons,
  type SingleResponse,
  successful,
} from '../../src/x509/ocsp.ts'
import { onlyOne, readCertId, readCertificates, readNonce } from '../../src/x509/ocsp-reading.ts'
import { readGeneralizedTime } from '../../src/x509/time.ts'

interface BasicResponse {
  /** ResponseData in DER: what is signed. */
  readonly tbs: Buffer
  readonly responderKeyHash: Buffer
  readonly producedAt: Date
  readonly responses: readonly (Omit<SingleResponse, 'certId'> & { readonly certId: CertId })[]
  readonly nonce?: Buffer
  readonly signatureAlgorithm: SignatureAlgorithm
  readonly signature: Buffer
  /** In DER, not judged. */
  readonly certificates: readonly Buffer[]
}

type OcspResponse = { readonly status: 'successful'; readonly basic: BasicResponse } | { readonly status: OcspError }

/** Throws `code` with the offset. */
export const parseOcspResponse = (der: Buffer, code: ProblemCode = 'policy.lint'): OcspResponse => {
  const error = errorNames.find((name) => ocspErrors[name].equals(der))
  if (error !== undefined) return { status: error }
  const outer = new DerReader(der, code)
  const budget = newBudget()
  walk(outer, budget)
  const response = outer.read(tags.sequence, 'OCSPResponse')
  if (!response.element(0x0a, 'responseStatus').equals(successful))
    throw response.problem('the status is neither successful nor that of an error')
  const explicit = response.read(0xa0, 'responseBytes')
  response.finish('OCSPResponse')
  const bytes = onlyOne(explicit, tags.sequence, 'ResponseBytes')
  if (bytes.oid('responseType') !== basicKey) throw bytes.problem('the response is not basic')
  const basic = bytes.read(tags.octetString, 'response')
  bytes.finish('ResponseBytes')
  walk(basic, budget)
  return { status: 'successful', basic: readBasic(basic.read(tags.sequence, 'BasicOCSPResponse'), budget) }
}

const readBasic = (response: DerReader, budget: WalkBudget): BasicResponse => {
  const window = response.window(tags.sequence, 'tbsResponseData')
  const tbs = window.octets
  const signatureAlgorithm = readSignatureAlgorithm(response)
  const signature = response.bits('signature').octets
  const certificates = readCertificates(response)
  response.finish('BasicOCSPResponse')
  const data = readResponseData(window.read(tags.sequence, 'ResponseData'), budget)
  return { tbs, ...data, signatureAlgorithm, signature, certificates }
}

const readResponseData = (
  data: DerReader,
  budget: WalkBudget,
): Pick<BasicResponse, 'responderKeyHash' | 'producedAt' | 'responses' | 'nonce'> => {
  const responderKeyHash = onlyOne(data.read(0xa2, 'byKey'), tags.octetString, 'KeyHash').octets
  if (responderKeyHash.length !== hashes.sha1.octets) throw data.problem('KeyHash is not SHA-1')
  const producedAt = readGeneralizedTime(data, 'producedAt')
  const list = data.read(tags.sequence, 'responses')
  if (list.done) throw list.problem('responses is empty')
  const responses: BasicResponse['responses'][number][] = []
  while (!list.done) responses.push(readSingle(list.read(tags.sequence, 'SingleResponse')))
  const extensions = data.optional(0xa1, 'responseExtensions')
  data.finish('ResponseData')
  const nonce = extensions && readNonce(extensions, budget)
  return { responderKeyHash, producedAt, responses, ...(nonce !== undefined && { nonce }) }
}

const readSingle = (single: DerReader): BasicResponse['responses'][number] => {
  const certId = readCertId(single.window(tags.sequence, 'certID'))
  const status = readStatus(single)
  const thisUpdate = readGeneralizedTime(single, 'thisUpdate')
  const explicit = single.read(0xa0, 'nextUpdate')
  const nextUpdate = readGeneralizedTime(explicit, 'nextUpdate')
  explicit.finish('nextUpdate')
  single.finish('SingleResponse')
  return { certId, status, thisUpdate, nextUpdate }
}

const readStatus = (single: DerReader): CertStatus => {
  const revoked = single.optional(0xa1, 'revoked')
  if (revoked !== undefined) return readRevoked(revoked)
  const { at, tag } = single
  const { length } = single.readAny('certStatus')
  const kind = tag === 0x80 ? 'good' : tag === 0x82 ? 'unknown' : undefined
  if (kind === undefined || length !== 0) throw derProblem(single.code, 'the status is unknown', at)
  return { kind }
}

const readRevoked = (revoked: DerReader): CertStatus => {
  const at = readGeneralizedTime(revoked, 'revocationTime')
  if (revoked.done) return { kind: 'revoked', at }
  const reason = reasonsByDer.get(revoked.element(0xa0, 'revocationReason').toString('latin1'))
  revoked.finish('RevokedInfo')
  if (reason === undefined) throw revoked.problem('the reason is unknown')
  return { kind: 'revoked', at, reason }
}

const basicKey = oidKey(ocspOids.basic)
const errorNames = Object.keys(ocspErrors) as OcspError[]
const reasonsByDer: ReadonlyMap<string, CrlReason> = new Map(
  [...reasons].map(([reason, der]) => [der.toString('latin1'), reason]),
)
