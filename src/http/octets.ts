import { openSlabs } from '../slabs.ts'

/** Texts in ASCII as the octets of one answer. */
export const asciiOctets = (texts: readonly string[]): Buffer => {
  const octets = answers(texts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const text of texts) at += octets.write(text, at, 'latin1')
  return octets
}

const answers = openSlabs(32_768)
