/** What a request (PKCS#10) asks for, as far as rules of Kubernetes look at it. Whoever starts the controller reads it. */

export interface RequestFacts {
  /** In DER. */
  readonly spki: Buffer
  readonly isSubjectEmpty: boolean
  readonly commonName: string | undefined
  readonly organizations: readonly string[]
  /** Some other attribute is in the subject. */
  readonly hasOtherAttributes: boolean
  readonly names: readonly { readonly kind: 'dns' | 'ip' | 'uri' | 'email'; readonly value: string }[]
}

/** From PEM. A fault is a sentence; the signature has not been checked. */
export type ReadRequest = (pem: string) => RequestFacts | { readonly fault: string }
