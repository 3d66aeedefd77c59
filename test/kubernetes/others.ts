/**
 * Kinds of cert-manager, trust-manager and prometheus-operator, as far as deploy/kubernetes uses them: the fields of their
 * published schemas that stand in a manifest of ours. One that is not here is new, or mistyped: look it up before adding it.
 */
const text = { type: 'string' } as const
const yesOrNo = { type: 'boolean' } as const
const labels = { type: 'object', additionalProperties: text } as const
const texts = { type: 'array', items: text } as const

const object = (properties: object, required: readonly string[] = []): object => ({
  type: 'object',
  properties,
  ...(required.length > 0 && { required }),
})
const list = (items: object): object => ({ type: 'array', items })
const choice = (...values: readonly string[]): object => ({ type: 'string', enum: values })
const whole = (spec: object): object =>
  object({ apiVersion: text, kind: text, metadata: { type: 'object' }, spec }, ['spec'])

const keyOf = object({ name: text, key: text }, ['name', 'key'])
const duration = { type: 'string', pattern: '^([0-9]+h)$' } as const
const selector = object({ matchLabels: labels })
const rule = object({ alert: text, expr: text, for: text, labels, annotations: labels }, ['expr'])

export const others: Readonly<Record<string, object>> = {
  'cert-manager.io/v1 Certificate': whole(
    object(
      {
        secretName: text,
        commonName: text,
        subject: object({ organizations: texts }),
        dnsNames: texts,
        ipAddresses: texts,
        uris: texts,
        privateKey: object({
          algorithm: choice('RSA', 'ECDSA', 'Ed25519'),
          size: { type: 'integer' },
          rotationPolicy: choice('Never', 'Always'),
        }),
        usages: list(
          choice('digital signature', 'key encipherment', 'server auth', 'client auth', 'signing', 'key agreement'),
        ),
        duration,
        renewBefore: duration,
        issuerRef: object({ group: text, kind: text, name: text }, ['name']),
      },
      ['issuerRef', 'secretName'],
    ),
  ),
  'trust.cert-manager.io/v1alpha1 Bundle': whole(
    object(
      {
        sources: list(object({ configMap: keyOf, secret: keyOf, inLine: text, useDefaultCAs: yesOrNo })),
        target: object({ configMap: object({ key: text }, ['key']), namespaceSelector: selector }),
      },
      ['sources'],
    ),
  ),
  'monitoring.coreos.com/v1 PrometheusRule': whole(
    object({ groups: list(object({ name: text, rules: list(rule) }, ['name'])) }),
  ),
  'monitoring.coreos.com/v1 ServiceMonitor': whole(
    object(
      {
        selector,
        endpoints: list(
          object({
            port: text,
            scheme: choice('http', 'https'),
            path: text,
            interval: text,
            authorization: object({ type: text, credentials: keyOf }),
            tlsConfig: object({ serverName: text, ca: object({ configMap: keyOf, secret: keyOf }) }),
          }),
        ),
      },
      ['selector', 'endpoints'],
    ),
  ),
  'monitoring.coreos.com/v1 PodMonitor': whole(
    object({ selector, podMetricsEndpoints: list(object({ port: text, path: text, interval: text })) }, ['selector']),
  ),
}
