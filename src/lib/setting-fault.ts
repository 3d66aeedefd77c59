/** A setting that is no good, as far as its text alone does not show: the message is a sentence that names what it names. */
export class SettingFault extends Error {
  /** What to do about it, where that is to be said. */
  readonly advice: string

  constructor(message: string, { cause, advice = '' }: { readonly cause?: Error; readonly advice?: string } = {}) {
    super(message, { cause })
    this.advice = advice
  }
}

/** Throws what a setting has led to as its fault. */
export const blameSetting =
  (name: string) =>
  (cause: Error): never => {
    throw new SettingFault(`${name}: ${cause.message}`, { cause })
  }

/** The same of a file that a setting names, where the message names the file. */
export const blameFile =
  (name: string) =>
  (cause: Error): never => {
    throw new SettingFault(cause.message, { cause, advice: `Mend the file, or name another by ${name}.` })
  }
