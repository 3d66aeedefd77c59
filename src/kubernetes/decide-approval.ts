/**
 * Whether a kubelet’s request for its serving certificate is what it says: a node that asks for itself, and for no name or
 * address but those that its Node object has. Pure. Anything else is left to people: nothing is ever denied here, and nothing
 * but serving certificates approved.
 */
import type { Told } from './decide-request.ts'
import { violationOf } from './decide-signing.ts'
import { type Condition, isTrue, type Node, type SigningRequest } from './objects.ts'
import { bounded } from './outcome.ts'
import type { RequestFacts } from './request-facts.ts'

export type ApprovalStep =
  | { readonly kind: 'ignore' }
  | { readonly kind: 'approve'; readonly condition: Condition; readonly event: Told }
  /** It may be looked at again when the Node object has changed. */
  | { readonly kind: 'leave'; readonly event: Told }

export const kubeletServing = 'kubernetes.io/kubelet-serving'

/** Undecided by anybody yet, and of this signer. */
export const isToBeApproved = (request: SigningRequest): boolean =>
  request.spec.signerName === kubeletServing &&
  request.metadata.deletionTimestamp === undefined &&
  !['Approved', 'Denied', 'Failed'].some((type) => isTrue(request, type))

/** The node that asks, by who asked; undefined where it is none. */
export const nodeOf = ({ spec }: SigningRequest): string | undefined => {
  const [, name] = /^system:node:(.+)$/.exec(spec.username ?? '') ?? []
  return name !== undefined && (spec.groups ?? []).includes('system:nodes') ? name : undefined
}

export const decideApproval = (
  request: SigningRequest,
  facts: RequestFacts | { readonly fault: string },
  node: Node | undefined,
): ApprovalStep => {
  if (!isToBeApproved(request)) return { kind: 'ignore' }
  const reason = reasonAgainst(request, facts, node)
  if (reason !== undefined) {
    const note = `left to people: ${reason}`
    return { kind: 'leave', event: { type: 'Warning', reason: 'NotApproved', action: 'Approve', note } }
  }
  const message = 'the node asks for itself, and for nothing but what its Node object has'
  return {
    kind: 'approve',
    condition: { type: 'Approved', status: 'True', reason: 'ChanceryKubeletServing', message },
    event: { type: 'Normal', reason: 'Approved', action: 'Approve', note: message },
  }
}

const reasonAgainst = (
  request: SigningRequest,
  facts: RequestFacts | { readonly fault: string },
  node: Node | undefined,
): string | undefined => {
  if ('fault' in facts) return `the request cannot be read: ${facts.fault}`
  const name = nodeOf(request)
  if (name === undefined) return `${bounded(request.spec.username ?? '', 128) || 'nobody'} is not a node`
  if (facts.commonName !== request.spec.username) return 'commonName: is not that of the node that asks'
  if (facts.hasOtherAttributes) return 'subject: has more than organization and commonName'
  const violation = violationOf(request, facts)
  if (violation !== undefined) return violation
  if (node === undefined || node.metadata.name !== name) return `node ${bounded(name, 128)} does not exist`
  const stranger = facts.names.find((asked) => !isOf(node, asked))
  return stranger && `names: ${stranger.kind} ${bounded(stranger.value, 128)} is not among the addresses of the node`
}

const isOf = ({ metadata, status }: Node, { kind, value }: RequestFacts['names'][number]): boolean => {
  const types = kind === 'dns' ? hostTypes : addressTypes
  if (kind === 'dns' && value === metadata.name.toLowerCase()) return true
  return (status?.addresses ?? []).some(({ type, address }) => types.has(type) && canonical(kind, address) === value)
}

/** Names of requests are in normal form: lower case, and addresses as RFC 5952 has them, which a URL's host has too. */
const canonical = (kind: 'dns' | 'ip' | string, address: string): string => {
  if (kind === 'dns') return address.toLowerCase()
  const host = address.includes(':') ? `[${address}]` : address
  return URL.canParse(`http://${host}/`) ? new URL(`http://${host}/`).hostname.replace(/^\[|\]$/g, '') : address
}

const hostTypes: ReadonlySet<string> = new Set(['Hostname', 'InternalDNS', 'ExternalDNS'])
const addressTypes: ReadonlySet<string> = new Set(['InternalIP', 'ExternalIP'])
