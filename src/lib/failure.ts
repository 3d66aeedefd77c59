/** How a command ends when it does not succeed: a sentence for people, a number for scripts (docs/commands.md). */

export const exitCodes = {
  /** A defect, here or in the server. */
  failed: 1,
  /** The command line, a file or a setting that it names. */
  usage: 2,
  /** The server turned the request down, and will again until it is changed. */
  refused: 3,
  /** Credentials or grants. */
  denied: 4,
  missing: 5,
  /** Exists already, or changed in the meantime. */
  conflict: 6,
  /** The same command may succeed later. */
  later: 7,
} as const

export type FailureKind = keyof typeof exitCodes

/** There is no certificate to be had under the same key. */
export const finalKinds: ReadonlySet<FailureKind> = new Set(['refused', 'missing', 'conflict'])

export class Failure extends Error {
  readonly kind: FailureKind
  readonly exitCode: number
  /** The problem document, where the server gave one; else what is known beside the sentence. */
  readonly problem: object | undefined

  constructor(kind: FailureKind, message: string, problem?: object, cause?: unknown) {
    super(message, { cause })
    this.name = 'Failure'
    this.kind = kind
    this.exitCode = exitCodes[kind]
    this.problem = problem
  }

  /** Of the problem document. */
  get problemCode(): string | undefined {
    return (this.problem as { readonly code?: string } | undefined)?.code
  }

  /** Seconds, where the server has said how long to wait. */
  get retryAfter(): number | undefined {
    return (this.problem as { readonly retryAfter?: number } | undefined)?.retryAfter
  }

  /** For machines: what the server told, which has a status, or in its place what is known here. */
  toJSON(): object {
    if (this.problem !== undefined && 'status' in this.problem) return this.problem
    return { failure: this.kind, exitCode: this.exitCode, detail: this.message, ...this.problem }
  }
}
