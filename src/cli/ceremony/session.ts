/**
 * What happens around a ceremony's acts: files are read and written once and with their digests, steps are shown and
 * confirmed, and all of it goes into a transcript that a witness can sign. Nothing secret passes through here.
 */
import { hash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { dirname, relative, resolve } from 'node:path'

import { Failure } from '../../lib/failure.ts'
import { readGiven } from '../../lib/input-files.ts'
import { visible } from '../../lib/output.ts'
import { formatTime } from '../../x509/time.ts'
import { openAnswers } from '../answers.ts'
import { version } from '../version.ts'
import { assertNew, assertWritable, createFile, createSealed, type SealedFile } from './files.ts'

/** A label and what it says; a label alone is a heading. */
export type Line = readonly [label: string, value?: string]

export interface SessionDeps {
  readonly clock: () => Date
  readonly input: NodeJS.ReadableStream
  readonly show: (text: string) => void
  /** Tells what would end the process, or leave nobody to look at it; the next step that waits for people is not taken. */
  readonly onBreak: (tell: (by: string) => void) => void
}

export interface SessionOptions {
  /** The file with the parameters; paths in it start from its folder. */
  readonly parameters: string
  /** Every step was confirmed beforehand. */
  readonly yes: boolean
}

/** Where each output goes. */
export type Outputs = Readonly<Record<string, string>> & { readonly transcript: string }

export interface Session {
  /** When the ceremony began: what is made now begins now. */
  readonly begun: Date
  /** From a path in the parameters. */
  pathOf(path: string): string
  /**
   * Before the key is touched: proves that every output can be written, and leaves a transcript that says that the ceremony
   * was broken off. From here on it is true after each step, whatever ends the process.
   */
  begin(outputs: Outputs): Promise<void>
  /** An input, with its digest on the record. Throws Failure when it cannot be read. */
  read(path: string): Promise<Buffer>
  /** Names a file that is read and whose digest nobody should have. */
  mention(what: string, path: string): void
  /** Shows what will be done, and puts it on the record. */
  tell(lines: readonly Line[]): void
  /** Goes on only when the answer was typed. Throws Failure otherwise. */
  confirm(step: Step): Promise<void>
  /** A new file, durable when it resolves; never over one that is there. */
  write(path: string, content: string | Buffer): Promise<void>
  /** Puts on the record a file that another has written. */
  recordOutput(path: string): Promise<void>
  /** The same of what was just made, which a transcript has to tell of, however the ceremony ends. */
  tellMade(line: Line): Promise<void>
  /** The transcript's last words; its digest, or undefined where nothing was made, so that it tells nothing and goes. */
  end(stopped?: string): Promise<string | undefined>
  close(): void
}

export interface Step {
  /** Ends the question "Type … to". */
  readonly act: string
  /** `yes`, or the first digits of what was to be compared. */
  readonly answer: string
  /** What the digits are of. */
  readonly digitsOf?: string
  /** What is left behind when nobody confirms. */
  readonly otherwise: string
}

export const openSession = async (
  title: string,
  { parameters, yes }: SessionOptions,
  { clock, input, show, onBreak }: SessionDeps,
): Promise<Session & { readonly text: string }> => {
  const begun = clock()
  const folder = dirname(resolve(parameters))
  const inputs: Line[] = []
  const outputs: Line[] = []
  const unread: Line[] = []
  const told: Line[] = []
  const confirmed: Line[] = []
  let hasMade = false
  let transcript: SealedFile | undefined
  let broken: string | undefined
  const answers = openAnswers(input)
  onBreak((by) => {
    broken ??= by
    answers.close()
  })

  const read = async (path: string): Promise<Buffer> => {
    const octets = await readGiven(path)
    inputs.push(digestLine(nameOf(folder, path), octets))
    return octets
  }
  const tell = (lines: readonly Line[]): void => {
    told.push(...lines)
    show(`${format(lines).map(visible).join('\n')}\n\n`)
  }
  const text = (await read(resolve(parameters))).toString('utf8')

  const compose = (ended: readonly Line[]): string =>
    [
      title,
      '='.repeat(title.length),
      ...format([
        ['Chancery', `${version}, Node ${process.versions.node}, OpenSSL ${process.versions.openssl}`],
        ['Machine', `${process.platform} ${process.arch}`],
        ['Begun', formatTime(begun)],
        ...ended,
      ]),
      ...section('What was shown', format(told)),
      ...section('Confirmations', format(confirmed)),
      ...section('Parameters, as they were read', text.trimEnd().split(/\r?\n/)),
      ...section('Inputs, by SHA-256 and octets', format(inputs)),
      ...section('Read, and secret: no digest', format(unread)),
      ...section('Outputs, by SHA-256 and octets', format(outputs)),
      '',
    ]
      .map((line) => `${visible(line)}\n`)
      .join('')
  const save = async (): Promise<void> => void (await transcript?.replace(compose(brokenOff)))

  return {
    begun,
    text,
    pathOf: (path) => resolve(folder, path),
    read,
    mention: (what, path) => unread.push([what, nameOf(folder, path)]),
    tell,
    begin: async (paths) => {
      assertNew(Object.values(paths))
      await assertWritable(Object.values(paths))
      transcript = await createSealed(paths.transcript, compose(brokenOff))
    },
    confirm: async ({ act, answer, digitsOf, otherwise }) => {
      const how = digitsOf === undefined ? `"${answer}" typed` : `first digits of ${digitsOf} typed: ${answer}`
      if (!yes && broken === undefined) {
        const what = digitsOf === undefined ? answer : `the first ${answer.length} digits of ${digitsOf}`
        show(`Type ${what} to ${act}: `)
        const isConfirmed = await answers.match(answer, () => show('That is not it. Once more: '))
        if (!isConfirmed && broken === undefined) throw new Failure('refused', `Not confirmed. ${otherwise}`)
        show('\n')
      }
      if (broken !== undefined) throw new Failure('refused', `Broken off by ${broken}. ${otherwise}`)
      confirmed.push([formatTime(clock()), `${act}: ${yes ? 'confirmed beforehand (--yes)' : how}`])
      await save()
    },
    write: async (path, content) => {
      await createFile(path, content)
      outputs.push(digestLine(nameOf(folder, path), content))
      await save()
    },
    recordOutput: async (path) => {
      outputs.push(digestLine(nameOf(folder, path), await readFile(path)))
      await save()
    },
    tellMade: async (line) => {
      hasMade = true
      tell([line])
      await save()
    },
    end: async (stopped) => {
      if (hasMade || stopped === undefined) {
        const why: readonly Line[] = stopped === undefined ? [] : [['Stopped', stopped]]
        return transcript?.replace(compose([['Ended', formatTime(clock())], ...why]))
      }
      await transcript?.remove()
      return undefined
    },
    close: answers.close,
  }
}

const format = (lines: readonly Line[]): readonly string[] => {
  const width = Math.max(0, ...lines.map(([label, value]) => (value === undefined ? 0 : label.length)))
  return lines.map(([label, value]) => (value === undefined ? label : `${label.padEnd(width)}  ${value}`.trimEnd()))
}

const section = (heading: string, lines: readonly string[]): readonly string[] =>
  lines.length === 0 ? [] : ['', heading, '-'.repeat(heading.length), ...lines]

const digestLine = (name: string, content: string | Buffer): Line => [
  name,
  `${hash('sha256', content)}  ${Buffer.byteLength(content)}`,
]

/** As it stands in the parameters, where it lies beside or below them. */
const nameOf = (folder: string, path: string): string => {
  const name = relative(folder, path)
  return name.startsWith('..') ? path : name
}

/** What stands in a transcript until its ceremony has ended. */
const brokenOff: readonly Line[] = [
  ['Stopped', 'broken off before its end: what is told here was done, and nothing after it'],
]
