/**
 * Usages as Kubernetes and cert-manager write them, and as Chancery does. Both APIs take these 23 and no others; cert-manager
 * has `signing` for digital signature as well.
 */

type Entry =
  | { readonly keyUsage: string }
  | { readonly extendedKeyUsage: string }
  /** No certificate of an end entity has it, whatever a profile says. */
  | { readonly never: string }

const table: Readonly<Record<string, Entry>> = {
  signing: { keyUsage: 'digitalSignature' },
  'digital signature': { keyUsage: 'digitalSignature' },
  'content commitment': { keyUsage: 'contentCommitment' },
  'key encipherment': { keyUsage: 'keyEncipherment' },
  'key agreement': { keyUsage: 'keyAgreement' },
  'data encipherment': { keyUsage: 'dataEncipherment' },
  'encipher only': { keyUsage: 'encipherOnly' },
  'decipher only': { keyUsage: 'decipherOnly' },
  'cert sign': { never: 'only a CA signs certificates' },
  'crl sign': { never: 'only a CA signs lists' },
  any: { never: 'a certificate for every usage is for none in particular' },
  'ocsp signing': { never: 'only the service itself answers for its issuers' },
  'server auth': { extendedKeyUsage: 'serverAuth' },
  'client auth': { extendedKeyUsage: 'clientAuth' },
  'code signing': { extendedKeyUsage: 'codeSigning' },
  'email protection': { extendedKeyUsage: 'emailProtection' },
  's/mime': { extendedKeyUsage: 'emailProtection' },
  'ipsec end system': { extendedKeyUsage: '1.3.6.1.5.5.7.3.5' },
  'ipsec tunnel': { extendedKeyUsage: '1.3.6.1.5.5.7.3.6' },
  'ipsec user': { extendedKeyUsage: '1.3.6.1.5.5.7.3.7' },
  timestamping: { extendedKeyUsage: 'timeStamping' },
  'microsoft sgc': { extendedKeyUsage: '1.3.6.1.4.1.311.10.3.3' },
  'netscape sgc': { extendedKeyUsage: '2.16.840.1.113730.4.1' },
}

export interface AskedUsages {
  readonly keyUsage?: readonly string[]
  readonly extendedKeyUsage?: readonly string[]
}

export type ReadUsages = { readonly usages: AskedUsages } | { readonly fault: string }

/** Each once, in the order in which they were asked for. None asked for: the profile's, whatever they are. */
export const readUsages = (asked: readonly string[] = []): ReadUsages => {
  const keyUsage = new Set<string>()
  const extendedKeyUsage = new Set<string>()
  for (const usage of asked) {
    const entry = Object.hasOwn(table, usage) ? table[usage] : undefined
    if (entry === undefined) return { fault: `the usage ${JSON.stringify(usage.slice(0, 64))} is not known` }
    if ('never' in entry) return { fault: `the usage ${usage} is for nobody: ${entry.never}` }
    if ('keyUsage' in entry) keyUsage.add(entry.keyUsage)
    else extendedKeyUsage.add(entry.extendedKeyUsage)
  }
  return {
    usages: {
      ...(keyUsage.size > 0 && { keyUsage: [...keyUsage] }),
      ...(extendedKeyUsage.size > 0 && { extendedKeyUsage: [...extendedKeyUsage] }),
    },
  }
}
