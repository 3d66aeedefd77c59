/** Somebody who looks at the checkpoint of an instance all the time, whatever happens to it. */
import { Agent, get } from 'node:https'
import { createSecureContext } from 'node:tls'

import type { Target } from './load.ts'

export interface Poller {
  /** What it was shown, in this order. */
  readonly notes: readonly string[]
  stop(): Promise<void>
}

export const openPoller = ({ port, ca, token }: Target): Poller => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const secureContext = createSecureContext({ ca })
  const notes: string[] = []
  let stopping = false
  const look = (): Promise<void> =>
    new Promise((resolve) => {
      const headers = { authorization: `Bearer ${token}` }
      const options = {
        host: '127.0.0.1',
        port,
        secureContext,
        agent,
        path: '/roll/checkpoint',
        headers,
        timeout: 5_000,
      }
      const call = get(options, (answer) => {
        let text = ''
        answer.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk
        })
        answer.on('end', () => {
          // A torn answer is none, as for any reader of notes.
          if (answer.statusCode === 200 && Buffer.byteLength(text) === Number(answer.headers['content-length']))
            notes.push(text)
          resolve()
        })
        answer.on('error', () => resolve())
      })
      call.on('timeout', () => call.destroy())
      call.on('error', () => resolve())
    })
  const run = async (): Promise<void> => {
    while (!stopping) {
      await look()
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    agent.destroy()
  }
  const running = run()
  return {
    notes,
    stop: async () => {
      stopping = true
      await running
    },
  }
}
