/** Telling those who use a certificate that there is a new one: by a command of theirs. */
import { spawn } from 'node:child_process'

import { Failure } from '../failure.ts'
import { visible } from '../output.ts'

/**
 * Runs it to its end. Resolves to what can be tried again when it did not succeed, or took longer than a minute. It gets
 * no token of ours.
 */
export const tellBy = async (
  [program = '', ...args]: readonly string[],
  signal?: AbortSignal,
): Promise<Failure | undefined> => {
  const { CHANCERY_TOKEN: _token, ...env } = process.env
  const limits = { timeout: longestMs, ...(signal && { signal }) }
  const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'], ...limits })
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-longestText)
    })
  const end = await new Promise<string | undefined>((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('close', (code, killer) =>
      resolve(code === 0 ? undefined : killer ? `was ended by ${killer}` : `ended with ${code}`),
    )
  })
  if (end === undefined) return undefined
  const detail = visible(`${program} ${end}${said === '' ? '' : `: ${said.trim()}`}`)
  const sentence = `The new certificate is in its place, but --exec failed: ${detail}\nThe same command tries it again.`
  return new Failure('later', sentence, { code: 'exec.failed', detail, retryable: true })
}

const longestMs = 60_000
const longestText = 2_000
