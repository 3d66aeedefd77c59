/** pg's client, which ends the connection, and not the process, where what comes in on it cannot be PostgreSQL's. */
import pg from 'pg'

export interface SessionConfig extends pg.ClientConfig {
  /**
   * `-c name=value …`, sent as the session starts, before the `options` of the URL: what that says last holds. Of pg's own
   * `options`, those of the URL would be sent alone.
   */
  readonly sessionOptions?: string
}

/** pg reads messages in a listener of the socket: what it throws there would be caught by nobody. */
export class Client extends pg.Client {
  constructor(config?: string | SessionConfig) {
    super(config)
    const { sessionOptions } = typeof config === 'object' ? config : {}
    if (sessionOptions) {
      const parameters = (this as unknown as Starting).connectionParameters
      parameters.options = [sessionOptions, parameters.options].filter(Boolean).join(' ')
    }
    const connection = this.connection as unknown as Reading
    const attach = connection.attachListeners.bind(connection)
    connection.attachListeners = (stream) => attach(guarded(stream))
  }
}

/** Known to pg, not to its types. */
interface Starting {
  readonly connectionParameters: { options?: string | null }
}

/** As pg's parser uses a socket. Known to pg, not to its types. */
interface Incoming {
  on(event: string, listener: (octets: Buffer) => void): unknown
  destroy(error: Error): unknown
}

interface Reading {
  attachListeners(stream: Incoming): unknown
}

/** Nothing that comes behind what could not be read can be: whose answer it would be is not known any more. */
const guarded = (stream: Incoming): Incoming => {
  let isBroken = false
  const read =
    (listener: (octets: Buffer) => void) =>
    (octets: Buffer): void => {
      if (isBroken) return
      try {
        listener(octets)
      } catch (cause) {
        isBroken = true
        stream.destroy(new Error(notPostgres, { cause }))
      }
    }
  return {
    on: (event, listener) => stream.on(event, event === 'data' ? read(listener) : listener),
    destroy: (error) => stream.destroy(error),
  }
}

/** Begins as pg's own words do, by which a connection is known to be lost. */
const notPostgres = "Connection terminated: what came is not PostgreSQL's protocol"
