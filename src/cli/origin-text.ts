/** On whose behalf something was asked for, for people. */
import type { Origin } from '../policy/origin.ts'

/** `alice in shop, CertificateRequest web-1`. */
export const originLine = ({ user, namespace, serviceAccount, node, object }: Origin): string =>
  [
    `${user ?? `service account ${serviceAccount}`}${namespace === undefined ? '' : ` in ${namespace}`}`,
    ...(node === undefined ? [] : [`node ${node}`]),
    ...(object === undefined ? [] : [`${object.kind} ${object.name}`]),
  ].join(', ')
