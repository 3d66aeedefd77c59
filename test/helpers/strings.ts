/** Strings of any code points. */
import fc from 'fast-check'

/**
 * What `fc.string({ unit: 'binary' })` makes, case for case: but that looks up where its own strings of dangerous names
 * come from in a table of a million code points, which each thread takes three seconds to build.
 */
export const anyString = (constraints: { readonly maxLength?: number } = {}): fc.Arbitrary<string> =>
  fc.string({ ...constraints, unit })

/** All but surrogates, which are no code points by themselves. */
const unit = fc.nat(0x10_ff_ff - 0x8_00).map(
  (index) => String.fromCodePoint(index < 0xd8_00 ? index : index + 0x8_00),
  (value) => {
    const point = typeof value === 'string' ? value.codePointAt(0) : undefined
    const isOne = point !== undefined && value === String.fromCodePoint(point) && (point < 0xd8_00 || point > 0xdf_ff)
    if (!isOne) throw new Error('not one code point')
    return point < 0xd8_00 ? point : point - 0x8_00
  },
)
