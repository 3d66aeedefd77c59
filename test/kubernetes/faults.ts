/** What goes wrong on order: one table of ways to fail, and rules that say for which requests and how often. */
import { failure } from './refusal.ts'
import type { About } from './server.ts'
import type { Value } from './values.ts'

export type FaultKind = 'drop' | 'lose' | 'hang' | 'delay' | 'unavailable' | 'throttle' | 'error' | 'conflict' | 'large'

export interface FaultOptions {
  /** Which requests: all whose parts are as said here. An actor is a user name. */
  readonly when?: Partial<About>
  /** How often; without end if left out. */
  readonly times?: number
  /** Of a delay. */
  readonly seconds?: number
}

export interface Fault {
  /** How many requests it has met. */
  used(): number
  end(): void
}

/** What is to become of a request. */
export interface Fate {
  /** Seconds to wait first. */
  readonly delay?: number
  /** The connection goes: before anything happens, or when it has happened and the answer is lost. */
  readonly broken?: 'before' | 'after' | 'never'
  readonly answer?: {
    readonly status: number
    readonly body: Value
    readonly headers: Readonly<Record<string, string>>
  }
}

export interface FaultTable {
  add(kind: FaultKind, options?: FaultOptions): Fault
  /** Undefined where all goes well. */
  fateOf(about: About | undefined): Fate | undefined
}

export const openFaults = (): FaultTable => {
  const faults: { readonly kind: FaultKind; readonly options: FaultOptions; used: number }[] = []
  return {
    add: (kind, options = {}) => {
      const fault = { kind, options, used: 0 }
      faults.push(fault)
      return {
        used: () => fault.used,
        end: () => {
          const index = faults.indexOf(fault)
          if (index >= 0) faults.splice(index, 1)
        },
      }
    },
    fateOf: (about) => {
      const fault = faults.find(
        ({ options, used }) => used < (options.times ?? Number.POSITIVE_INFINITY) && matches(about, options.when ?? {}),
      )
      if (fault === undefined) return undefined
      fault.used += 1
      return fates[fault.kind](fault.options)
    },
  }
}

const matches = (about: About | undefined, when: Partial<About>): boolean =>
  Object.entries(when).every(([part, wanted]) => about?.[part as keyof About] === wanted)

const status = (code: number, reason: string, message: string, more: Parameters<typeof failure>[3] = {}): Fate => {
  const refusal = failure(code, reason, message, more)
  return { answer: { status: code, body: refusal.body, headers: refusal.headers } }
}

/** Of API Priority and Fairness, and of the bounds on requests before it: no Status, and how long to wait in the head alone. */
const throttled = {
  body: 'Too many requests, please try again later.\n',
  headers: { 'content-type': 'text/plain; charset=utf-8', 'retry-after': '1' },
}

const fates: Readonly<Record<FaultKind, (options: FaultOptions) => Fate>> = {
  drop: () => ({ broken: 'before' }),
  lose: () => ({ broken: 'after' }),
  hang: () => ({ broken: 'never' }),
  delay: ({ seconds = 1 }) => ({ delay: seconds }),
  unavailable: () => status(503, 'ServiceUnavailable', 'the server is currently unable to handle the request'),
  throttle: () => ({ answer: { status: 429, ...throttled } }),
  error: () => status(500, 'InternalError', 'Internal error occurred: etcdserver: request timed out'),
  large: () => status(500, '', 'etcdserver: request is too large'),
  conflict: () =>
    status(
      409,
      'Conflict',
      'Operation cannot be fulfilled: the object has been modified; please apply your changes to the latest version and try again',
    ),
}
