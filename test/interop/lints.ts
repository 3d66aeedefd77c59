/**
 * What zlint says that is no fault here, lint by lint: rules of the public web for certificates whose names and relying
 * parties are their owner's. Each must be hit by a certificate that it names, or the test fails.
 */
export interface LintException {
  readonly lint: string
  /** Whose rule it is, as zlint says. */
  readonly source: 'CABF_BR' | 'Mozilla' | 'RFC5280'
  readonly reason: string
  /** Where it is none of our faults; elsewhere it fails. Left out: everywhere. */
  readonly only?: (of: { readonly profile: string; readonly keyType: string }) => boolean
}

const baseline = (lint: string, reason: string, only: LintException['only'] = () => true): LintException => ({
  lint,
  source: 'CABF_BR',
  reason,
  only,
})

const isKubernetes = ({ profile }: { readonly profile: string }): boolean => !['server', 'client'].includes(profile)
const isKubeletServing = ({ profile }: { readonly profile: string }): boolean => profile === 'kubelet-serving'

export const lintExceptions: readonly LintException[] = [
  baseline(
    'e_sub_cert_certificate_policies_missing',
    'a policy of the CA/Browser Forum is claimed by public authorities only',
  ),
  baseline('e_sub_cert_cert_policy_empty', 'a policy of the CA/Browser Forum is claimed by public authorities only'),
  baseline(
    'w_ext_subject_key_identifier_not_recommended_subscriber',
    'RFC 5280 4.2.1.2 says that certificates should have it; the forum wants small handshakes',
  ),
  baseline(
    'w_subject_common_name_included',
    'profiles take a common name where their relying parties read it (RBAC, etcd)',
  ),
  baseline(
    'e_dnsname_not_valid_tld',
    'names of clusters and internal names (localhost, *.svc, example.internal) lie outside of the public DNS',
    ({ profile }) => profile !== 'server',
  ),
  baseline(
    'e_ext_san_contains_reserved_ip',
    'addresses of clusters and of loopback are private (RFC 1918, RFC 4193, RFC 1122)',
  ),
  baseline(
    'e_ext_san_uniform_resource_identifier_present',
    'a SPIFFE ID is a URI (SPIFFE X.509-SVID 2)',
    ({ profile }) => profile === 'spiffe-workload',
  ),
  baseline(
    'e_subject_common_name_not_exactly_from_san',
    'Kubernetes and etcd know whom they talk to by a common name that is an identifier, not a host',
    isKubernetes,
  ),
  baseline(
    'e_dnsname_bad_character_in_label',
    'the common name system:node:<name> is an identifier that Kubernetes prescribes, not a host',
    isKubeletServing,
  ),
  baseline(
    'e_sub_cert_country_name_must_appear',
    'the organization system:nodes is a group of Kubernetes, not a company in a country',
    isKubeletServing,
  ),
  baseline(
    'e_sub_cert_locality_name_must_appear',
    'the organization system:nodes is a group of Kubernetes, not a company in a place',
    isKubeletServing,
  ),
  baseline(
    'e_sub_cert_province_must_appear',
    'the organization system:nodes is a group of Kubernetes, not a company in a province',
    isKubeletServing,
  ),
  baseline(
    'e_public_key_type_not_allowed',
    'the forum has not adopted these kinds of key; profiles allow them one by one',
    ({ keyType }) => keyType === 'Ed25519' || keyType.startsWith('ML-DSA'),
  ),
  baseline(
    'e_algorithm_identifier_improper_encoding',
    'the forum lists identifiers of RSA and NIST curves only; ours are those of RFC 8410 and RFC 9881',
    ({ keyType }) => keyType === 'Ed25519' || keyType.startsWith('ML-DSA'),
  ),
  {
    lint: 'e_mp_ecdsa_pub_key_encoding_correct',
    source: 'Mozilla',
    reason: "Mozilla's root programme has no P-521",
    only: ({ keyType }) => keyType === 'P-521',
  },
  {
    lint: 'e_key_usage_and_extended_key_usage_inconsistent',
    source: 'RFC5280',
    reason:
      'Kubernetes documents digital signature and key encipherment for its client certificates, and cert-manager asks for both by default; RFC 5280 4.2.1.12 says of clientAuth which bits "may be consistent"',
    only: ({ profile, keyType }) =>
      keyType.startsWith('RSA') &&
      [
        'client',
        'kube-apiserver-kubelet-client',
        'kubelet-client',
        'kube-controller-manager',
        'kube-scheduler',
        'kubernetes-admin',
        'etcd-client',
        'front-proxy-client',
      ].includes(profile),
  },
]
