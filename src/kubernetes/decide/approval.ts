/**
 * Whether a kubelet’s request for its serving certificate is what it says: a node that asks for itself, and for no name or
 * address but those that its Node object has. Pure. Anything else is left to people: nothing is ever denied here, and nothing
 * but serving certificates approved.
 */

import { type Condition, isTrue, type Node, type SigningRequest } from '../api/objects.ts'
import type { RequestFacts } from './asking.ts'
import { bounded } from './outcome.ts'
import type { Told } from './request.ts'
import { violationOf } from './signing.ts'

export type ApprovalStep =
  | { readonly kind: 'ignore' }
  | { readonly kind: 'approve'; readonly condition: Condition; readonly event: Told }
  /**
   * For good, where it is about the request, which nobody can change; otherwise until the next look, since Node objects change.
   */
  | { readonly kind: 'leave'; readonly event: Told; readonly isFinal: boolean }
  /** What other nodes have is not known at present. */
  | { readonly kind: 'wait'; readonly event: Told }

export interface Nodes {
  /** The one that asks, as it is now. */
  readonly node: Node | undefined
  /** All of them. */
  readonly nodes: Iterable<Node>
  /** For how many milliseconds it is not known what has become of them. */
  readonly behindMs: number
}

export const kubeletServing = 'kubernetes.io/kubelet-serving'

/** Undecided by anybody yet, and of this signer. */
export const isToBeApproved = (request: SigningRequest): boolean =>
  request.spec.signerName === kubeletServing &&
  request.metadata.deletionTimestamp === undefined &&
  !['Approved', 'Denied', 'Failed'].some((type) => isTrue(request, type))

/** The node that asks, by who asked; undefined where it is none, as by a name that no object has and that is a step in a path. */
export const nodeOf = ({ spec }: SigningRequest): string | undefined => {
  const [, name] = /^system:node:([a-z0-9][a-z0-9.-]*)$/.exec(spec.username ?? '') ?? []
  return name !== undefined && (spec.groups ?? []).includes('system:nodes') ? name : undefined
}

/** Whether its Node object may have what it waits for. Of a long one groups are not at hand: the look itself judges them. */
export const isOfNode = (request: SigningRequest, name: string): boolean =>
  isToBeApproved(request) && request.spec.username === `system:node:${name}`

export const decideApproval = (
  request: SigningRequest,
  facts: RequestFacts | { readonly fault: string },
  { node, nodes, behindMs }: Nodes,
): ApprovalStep => {
  const outright = decideOutright(request, facts, behindMs)
  if (outright !== undefined) return outright
  const reason = reasonOfNode(request, facts as RequestFacts, node)
  if (reason !== undefined) return left(reason, false)
  const shared = sharedName(request, facts as RequestFacts, nodes)
  if (shared !== undefined) return left(shared, false)
  const message = 'the node asks for itself, and for nothing but what its Node object has'
  return {
    kind: 'approve',
    condition: { type: 'Approved', status: 'True', reason: 'ChanceryKubeletServing', message },
    event: { type: 'Normal', reason: 'Approved', action: 'Approve', note: message },
  }
}

/** What can be said before any Node object is read; undefined where it is for them to say. */
export const decideOutright = (
  request: SigningRequest,
  facts: RequestFacts | { readonly fault: string },
  behindMs: number,
): ApprovalStep | undefined => {
  if (!isToBeApproved(request)) return { kind: 'ignore' }
  const reason = reasonOfRequest(request, facts)
  if (reason !== undefined) return left(reason, true)
  return behindMs > freshMs ? { kind: 'wait', event: notApproved(blind) } : undefined
}

const notApproved = (note: string): Told => ({ type: 'Warning', reason: 'NotApproved', action: 'Approve', note })

const left = (reason: string, isFinal: boolean): Extract<ApprovalStep, { readonly kind: 'leave' }> => ({
  ...{ kind: 'leave', isFinal },
  event: notApproved(`left to people: ${reason}`),
})

/** Nothing in it changes: the API server takes no update of a spec. */
const reasonOfRequest = (
  request: SigningRequest,
  facts: RequestFacts | { readonly fault: string },
): string | undefined => {
  if ('fault' in facts) return `the request cannot be read: ${facts.fault}`
  if (nodeOf(request) === undefined) return `${bounded(request.spec.username ?? '', 128) || 'nobody'} is not a node`
  if (facts.commonName !== request.spec.username) return 'commonName: is not that of the node that asks'
  if (facts.hasOtherAttributes) return 'subject: has more than organization and commonName'
  return violationOf(request, facts)
}

const reasonOfNode = (request: SigningRequest, facts: RequestFacts, node: Node | undefined): string | undefined => {
  const name = nodeOf(request) ?? ''
  if (node === undefined || node.metadata.name !== name) return `node ${bounded(name, 128)} does not exist`
  const strangers = namesAsked(facts)
  for (const form of formsOf(node)) strangers.delete(form)
  const [stranger] = strangers.values()
  return stranger && `names: ${stranger.kind} ${bounded(stranger.value, 128)} is not among the addresses of the node`
}

/** A node writes its own addresses: what it shares with another one, people must tell apart. */
const sharedName = (request: SigningRequest, facts: RequestFacts, nodes: Iterable<Node>): string | undefined => {
  const asked = namesAsked(facts)
  for (const other of nodes) {
    const rival = other.metadata.name
    if (rival === nodeOf(request)) continue
    for (const form of formsOf(other)) {
      const shared = asked.get(form)
      if (shared) return `names: ${shared.kind} ${bounded(shared.value, 128)} is of node ${rival}, too`
    }
  }
  return undefined
}

const namesAsked = ({ names }: RequestFacts): Map<string, RequestFacts['names'][number]> =>
  new Map(names.map((asked) => [formOf(asked), asked]))

const formOf = ({ kind, value }: RequestFacts['names'][number]): string =>
  `${kind} ${kind === 'ip' ? canonical(value) : value}`

/**
 * All that a node may ask for, each once: it writes as many addresses as its object takes, tens of thousands, and a look that went
 * through them for each name that is asked for would hold up everybody else's, the lease included.
 */
function* formsOf({ metadata, status }: Node): Iterable<string> {
  yield `dns ${metadata.name.toLowerCase()}`
  for (const { type, address } of status?.addresses ?? [])
    if (addressTypes.has(type) || isHostOfAddress(type, address)) yield `ip ${canonical(address)}`
    else if (hostTypes.has(type)) yield `dns ${address.toLowerCase()}`
}

/** A kubelet that is called by an address (`--hostname-override`) asks for that as an address; of the other types it never does. */
const isHostOfAddress = (type: string, address: string): boolean =>
  type === 'Hostname' && address.length <= longestAddress && (address.includes(':') || fourOctets.test(address))

/**
 * As RFC 5952 has it, which a URL's host has too, and IPv4 within IPv6 as IPv4. What is no address is left as it is: a URL
 * would take 010.0.0.5 and 2130706433 for some.
 */
const canonical = (address: string): string => {
  // A node writes whatever it likes, up to a megabyte: nothing that is longer than an address is looked at.
  const isSix = address.length <= longestAddress && address.includes(':') && /^[0-9a-fA-F:.]+$/.test(address)
  const url = isSix ? URL.parse(`http://[${address}]/`) : null
  if (url === null) return address
  const six = url.hostname.slice(1, -1)
  const [, high, low] = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(six) ?? []
  if (high === undefined || low === undefined) return six
  return [high, low].flatMap((part) => [Number.parseInt(part, 16) >> 8, Number.parseInt(part, 16) & 0xff]).join('.')
}

const blind = 'what other nodes have is not known at present; it is looked at again'
/**
 * Longer than it takes to begin a watch anew, with a pause or two. A node that has come meanwhile, or has written another
 * address, is not known; so not much longer.
 */
const freshMs = 60_000
const fourOctets = /^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}$/
/** IPv4 within IPv6, in full. */
const longestAddress = 45
const hostTypes: ReadonlySet<string> = new Set(['Hostname', 'InternalDNS', 'ExternalDNS'])
const addressTypes: ReadonlySet<string> = new Set(['InternalIP', 'ExternalIP'])
