/** What is driven: a server, the one request that it gets over and over, and how to see that it did its work. */
import type { DatabaseUrls } from '../place.ts'

export interface Target {
  /** For `--only`. */
  readonly name: string
  /** In the table. */
  readonly title: string
  readonly version: string
  readonly url: string
  /** POST where nothing is said. */
  readonly method?: 'GET'
  /** PEM; only checked calls look at it, wrk never does. */
  readonly ca: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
  /** Each request with an Idempotency-Key of its own. */
  readonly keyed?: true
  /** For requests that cannot be repeated: bodies to use once each, for so many requests. */
  bodies?(count: number): Promise<readonly string[]>
  /** PEM; only the generator in Node can show it. */
  readonly client?: { readonly cert: string; readonly key: string }
  /** How often clients open one; kept alive where nothing is said. The generator in Node alone does otherwise. */
  readonly connections?: 'new' | 'resumed'
  readonly pid: number
  /** Of ours: the public listener, and the data folder. */
  readonly publicUrl?: string
  readonly dataDir?: string
  readonly database?: DatabaseUrls
  /** Throws unless this answer holds a certificate of ours for the asked name. */
  assertIssued(status: number, text: string): void
  /** Certificates in its records; absent where it keeps none that can be counted. */
  recorded?(): Promise<number>
  /** Prometheus text, where it has any. */
  metrics?(): Promise<string>
  close(): Promise<void>
}

/** The one request: P-256, one DNS name, empty subject, as ACME clients and cert-manager make it. */
export interface SampleRequest {
  readonly pem: string
  readonly name: string
}
