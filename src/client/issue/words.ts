/** A command line as words, as a shell would split it, but with nothing that a shell would do to them. */
import { Failure } from '../../lib/failure.ts'

/** Spaces part words; single and double quotes keep them together; a backslash takes the next character as it is. */
export const wordsOf = (text: string): readonly string[] => {
  const words: string[] = []
  let rest = text.trimStart()
  while (rest !== '') {
    const [whole = '', word = ''] = wordForm.exec(rest) ?? []
    if (whole === '') throw new Failure('usage', `--exec has a quote that does not end: ${text}`)
    words.push(
      word.replaceAll(
        pieceForm,
        (_, single?: string, double?: string, escaped = '') =>
          single ?? (double === undefined ? escaped : unescaped(double)),
      ),
    )
    rest = rest.slice(whole.length)
  }
  if (words.length === 0) throw new Failure('usage', '--exec names no command.')
  return words
}

const unescaped = (text: string): string => text.replaceAll(/\\(["\\$`])/g, '$1')

const wordForm = /^((?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s'"\\])+)(?:\s+|$)/s
const pieceForm = /'([^']*)'|"((?:\\.|[^"\\])*)"|\\(.)/gs
