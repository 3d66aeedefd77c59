/** Identity providers whose tokens can make the same principal, though each vouches for its own people alone. */
import type { ProviderDocument } from './identity-document.ts'

/** The names of the others, sorted. Names without a claim that both have are meant so, and are none of these. */
export const sharersOf = (document: ProviderDocument, others: readonly ProviderDocument[]): readonly string[] =>
  others
    .filter(({ name }) => name !== document.name)
    .filter((other) => spacesOf(document).some((one) => spacesOf(other).some((another) => isShared(one, another))))
    .map(({ name }) => name)
    .sort()

/** What its names begin with, or its one name. */
interface Space {
  readonly start: string
  readonly isOpen: boolean
}

const spacesOf = ({ mappings }: ProviderDocument): readonly Space[] =>
  mappings.map(({ principal }) => ({ start: principal.split('{', 1)[0] ?? '', isOpen: principal.includes('{') }))

const isShared = (one: Space, another: Space): boolean =>
  (one.isOpen && another.start.startsWith(one.start)) || (another.isOpen && one.start.startsWith(another.start))
