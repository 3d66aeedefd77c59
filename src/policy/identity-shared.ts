/** Who a token makes somebody: where two providers make one principal, or two versions of one make two of one person. */
import type { ProviderDocument } from './identity-document.ts'

/** The names of the others, sorted. Names without a claim that both have are meant so, and are none of these. */
export const sharersOf = (document: ProviderDocument, others: readonly ProviderDocument[]): readonly string[] =>
  others
    .filter(({ name }) => name !== document.name)
    .filter((other) => spacesOf(document).some((one) => spacesOf(other).some((another) => isShared(one, another))))
    .map(({ name }) => name)
    .sort()

/**
 * How the version before made principals of claims and this one does not, and how this one does instead. Undefined where it only
 * makes more of them, or fewer.
 */
export const renamedBy = (
  document: ProviderDocument,
  before: ProviderDocument,
): { readonly from: readonly string[]; readonly to: readonly string[] } | undefined => {
  const [then, now] = [templatesOf(before), templatesOf(document)]
  const from = then.filter((template) => !now.includes(template))
  const to = now.filter((template) => !then.includes(template))
  return from.length > 0 && to.length > 0 ? { from, to } : undefined
}

const isOfClaims = (principal: string): boolean => principal.includes('{')

/** Each once, sorted. A claim and the pointer to it (`sub`, `/sub`) are the same. */
const templatesOf = ({ mappings }: ProviderDocument): readonly string[] => {
  const templates = mappings.map(({ principal }) => principal.replaceAll(/\{\/([^/~{}]+)\}/g, '{$1}'))
  return [...new Set(templates.filter(isOfClaims))].sort()
}

/** What its names begin with, or its one name. */
interface Space {
  readonly start: string
  readonly isOpen: boolean
}

const spacesOf = ({ mappings }: ProviderDocument): readonly Space[] =>
  mappings.map(({ principal }) => ({ start: principal.split('{', 1)[0] ?? '', isOpen: isOfClaims(principal) }))

const isShared = (one: Space, another: Space): boolean =>
  (one.isOpen && another.start.startsWith(one.start)) || (another.isOpen && one.start.startsWith(another.start))
