/** A setting that is no good, as far as its text alone does not show: the message is a sentence that names what it names. */
export class SettingFault extends Error {}

/** Throws what a setting has led to as its fault. Without a name the message does without one. */
export const blameSetting =
  (name?: string) =>
  (cause: Error): never => {
    throw new SettingFault(name === undefined ? cause.message : `${name}: ${cause.message}`, { cause })
  }
