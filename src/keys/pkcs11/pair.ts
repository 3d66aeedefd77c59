/** How a pair is made in a token: by the strictest template that its module takes. */
import type { Handle } from 'pkcs11js'

import { cka, type Generation } from './mechanisms.ts'
import type { Token } from './module.ts'
import { assertFree, type Pair, reader, type Template, takeAway } from './objects.ts'
import { mindsTemplate } from './return-values.ts'

export interface WantedPair {
  readonly generation: Generation
  readonly label: string
  readonly id: Buffer
}

/**
 * By the first templates that the module takes: it says of none which attribute it minds. What came of a try that failed all the
 * same is found by whoever opens it, and no second one made beside it.
 */
export const makePair = async (token: Token, session: Handle, pair: WantedPair): Promise<Pair> => {
  const { mechanism } = pair.generation
  let refusal: unknown
  for (const [publicHalf = [], privateHalf = []] of templatesOf(pair))
    try {
      const made = await token.lib.C_GenerateKeyPairAsync(session, { mechanism }, [...publicHalf], [...privateHalf])
      if (refusal !== undefined) refuseCopyable(token, session, made, refusal)
      return made
    } catch (error) {
      if (!mindsTemplate(error) || error === refusal) throw error
      refusal ??= error
      assertFree(token, session, pair.label, pair.id)
    }
  throw refusal
}

/** A token that knows CKA_COPYABLE would have taken it: what failed before was no matter of templates, and makes no weaker key. */
const refuseCopyable = (token: Token, session: Handle, made: Pair, refusal: unknown): void => {
  if (reader(token, session, made.privateKey)(cka.copyable)?.[0] !== 1) return
  takeAway(token, session, made)
  throw refusal
}

const templatesOf = ({ generation: { keyType, forms }, label, id }: WantedPair): readonly Template[][] => {
  const shared = [
    { type: cka.token, value: true },
    { type: cka.keyType, value: keyType },
    { type: cka.label, value: Buffer.from(label) },
    { type: cka.id, value: id },
  ]
  return forms.flatMap((form) =>
    usages.map(({ ofPublic, ofPrivate }) => [
      [...shared, ...form, ...ofPublic],
      [...shared, ...ofPrivate],
    ]),
  )
}

const signsOnly = [
  { type: cka.private, value: true },
  { type: cka.sensitive, value: true },
  { type: cka.extractable, value: false },
  { type: cka.sign, value: true },
  { type: cka.decrypt, value: false },
  { type: cka.unwrap, value: false },
  { type: cka.derive, value: false },
  { type: cka.modifiable, value: false },
]
const verifies = [{ type: cka.verify, value: true }]
const notCopied = { type: cka.copyable, value: false }
/**
 * What the halves of a new pair may do: all that there is to say; and less, for modules that take no key so, but nothing that
 * they do take. tpm2-pkcs11 takes no CKA_VERIFY beside a private half that does not decrypt, and NSS knows no CKA_COPYABLE (measured).
 */
const usages = [
  { ofPublic: verifies, ofPrivate: [...signsOnly, notCopied] },
  { ofPublic: [], ofPrivate: [...signsOnly, notCopied] },
  { ofPublic: verifies, ofPrivate: signsOnly },
]
