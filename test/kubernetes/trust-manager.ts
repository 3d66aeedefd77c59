/**
 * What trust-manager's webhook and the rules in its definition refuse of a Bundle, as far as a schema of fields cannot say it
 * (pkg/webhook/validation.go, pkg/apis/trust/v1alpha1/types_bundle.go). Read, and not run.
 */
import type { Json, Manifest } from './manifests.ts'

/** What is wrong with a Bundle; nothing, where it would be taken. */
export const bundleFaults = ({ metadata, spec }: Manifest): readonly string[] => {
  const { sources = [], target = {} } = spec
  return [
    ...ofAll(sources),
    ...sources.flatMap((source: Json, index: number) =>
      [...ofOne(source), ...ofTarget(source, metadata.name, target)].map((fault) => `.spec.sources[${index}]${fault}`),
    ),
    ...ofTargets(target),
  ]
}

const ofAll = (sources: readonly Json[]): readonly string[] => [
  ...(sources.some(({ useDefaultCAs }) => useDefaultCAs !== false) ? [] : ['.spec.sources: at least one source']),
  ...(sources.filter(({ useDefaultCAs }) => useDefaultCAs !== undefined).length > 1
    ? ['.spec.sources: default CAs once at most']
    : []),
]

const ofOne = (source: Json): readonly string[] => [
  ...(sourceKinds.filter((kind) => source[kind] !== undefined).length === 1 ? [] : [': exactly one kind of source']),
  ...objectKinds
    .filter((kind) => source[kind])
    .flatMap((kind) => [
      ...(isEither(source[kind].name, source[kind].selector) ? [] : [`.${kind}: either name or selector`]),
      ...(isEither(source[kind].key, source[kind].includeAllKeys) ? [] : [`.${kind}: either key or includeAllKeys`]),
    ]),
]

const isEither = (one: unknown, other: unknown): boolean => Boolean(one) !== Boolean(other)

/** A target has the name of its Bundle, and in trust-manager's own namespace it would be read and written at once. */
const ofTarget = (source: Json, name: string, target: Json): readonly string[] =>
  objectKinds
    .filter((kind) => target[kind] && source[kind]?.name === name && source[kind].key === target[kind].key)
    .map((kind) => `.${kind}: the same source as target`)

const ofTargets = (target: Json): readonly string[] => {
  const keys: readonly string[] = objectKinds.flatMap((kind) => target[kind]?.key ?? [])
  const formats: readonly (readonly [string, Json])[] = Object.entries(target.additionalFormats ?? {})
  const before = (index: number): readonly string[] => [...keys, ...formats.slice(0, index).map(([, { key }]) => key)]
  return [
    ...(objectKinds.some((kind) => target[kind]) ? [] : ['.spec.target: a ConfigMap or a Secret']),
    ...formats
      .filter(([, { key }], index) => before(index).includes(key))
      .map(([format]) => `.spec.target.additionalFormats.${format}: its key is another's`),
  ]
}

const objectKinds = ['configMap', 'secret'] as const
const sourceKinds = [...objectKinds, 'inLine', 'useDefaultCAs'] as const
