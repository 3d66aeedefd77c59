/** `npm start` in a new data folder until the first certificate is in the client's hands; packages are installed. */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import { freePort } from '../test/helpers/port.ts'
import type { Place } from './place.ts'
import { pause, start } from './process.ts'
import { call } from './request.ts'
import type { SampleRequest } from './targets/target.ts'

/** Seconds. Its own embedded PostgreSQL, hierarchy, profiles, administrator: all of it made on the way. */
export const measureStart = async (place: Place, sample: SampleRequest, round: number): Promise<number> => {
  const data = join(place.folder, `start-${round}`)
  const port = await freePort()
  const env = {
    CHANCERY_DATA: data,
    CHANCERY_LISTEN: `127.0.0.1:${port}`,
    CHANCERY_PUBLIC_LISTEN: `127.0.0.1:${await freePort()}`,
  }
  const began = performance.now()
  const program = await start({ command: 'npm', args: ['start'], env, cwd: root, log: join(place.folder, 'start.log') })
  try {
    for (const deadline = began + 60_000; performance.now() < deadline; await pause(10)) {
      if (!program.isRunning()) break
      if (!existsSync(join(data, 'admin.token')) || !existsSync(join(data, 'root.pem'))) continue
      const [token, ca] = [await readText(data, 'admin.token'), await readText(data, 'root.pem')]
      const headers = { authorization: `Bearer ${token.trim()}`, 'content-type': 'application/json' }
      const body = JSON.stringify({ csr: sample.pem, profile: 'server' })
      const url = `https://127.0.0.1:${port}/v1/certificates`
      const answer = await call({ url, ca, method: 'POST', headers, body }).catch(() => undefined)
      if (answer?.status === 201) return (performance.now() - began) / 1000
    }
    throw new Error(`npm start gave no certificate:\n${await program.lastWords()}`)
  } finally {
    await program.stop()
  }
}

const readText = (...path: readonly string[]): Promise<string> => readFile(join(...path), 'utf8')

const root = join(import.meta.dirname, '..')
