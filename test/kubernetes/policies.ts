/** Where NetworkPolicies let a pod go, as they are written: what a network makes of them is its own. */
import { BlockList } from 'node:net'

import type { Json, Manifest, PodTemplate } from './manifests.ts'

/** One end of a connection: a pod with its namespace, or an address that is no pod's. */
export interface Place {
  readonly namespace?: string
  readonly labels?: Readonly<Record<string, string>>
  readonly address?: string
}

export interface Way {
  readonly to: Place
  readonly port: number
  readonly protocol: 'TCP' | 'UDP'
}

/** Whether a pod of the namespace whose policies these are may go there. Named ports are nobody's. */
export const mayGo = (policies: readonly Manifest[], pod: PodTemplate, way: Way): boolean => {
  const own = policies.filter(
    ({ spec }) => spec.policyTypes.includes('Egress') && selects(spec.podSelector, pod.labels),
  )
  if (own.length === 0) return true
  return own.flatMap(({ spec }) => spec.egress ?? []).some((rule) => isAllowed(rule, way))
}

const isAllowed = ({ to, ports }: Json, way: Way): boolean =>
  (ports ?? [way]).some(({ port, protocol }: Json) => port === way.port && protocol === way.protocol) &&
  (to === undefined || to.some((peer: Json) => isPeer(peer, way.to)))

const isPeer = ({ ipBlock, namespaceSelector, podSelector }: Json, { namespace, labels, address }: Place): boolean => {
  if (ipBlock) return address !== undefined && isWithin(ipBlock.cidr, address)
  if (labels === undefined || namespace === undefined || !namespaceSelector) return false
  return selects(namespaceSelector, { 'kubernetes.io/metadata.name': namespace }) && selects(podSelector, labels)
}

const isWithin = (cidr: string, address: string): boolean => {
  const [network = '', length] = cidr.split('/')
  const block = new BlockList()
  block.addSubnet(network, Number(length))
  return block.check(address)
}

const selects = (selector: Json = {}, labels: Readonly<Record<string, string>>): boolean =>
  Object.entries(selector.matchLabels ?? {}).every(([key, value]) => labels[key] === value) &&
  (selector.matchExpressions ?? []).every(({ key, operator, values }: Json) => {
    if (operator !== 'In') throw new Error(`nobody has written what ${operator} means`)
    return values.includes(labels[key])
  })
