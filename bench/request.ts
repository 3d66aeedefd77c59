/** One HTTPS request, read in full: for what is checked, not for what is measured. */
import { type Agent, request as httpsRequest } from 'node:https'

export interface Call {
  readonly url: string
  readonly ca: string
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  readonly agent?: Agent
}

export interface Answer {
  readonly status: number
  readonly text: string
}

export const call = ({ url, ca, method = 'GET', headers = {}, body = '', agent }: Call): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const all = body === '' ? headers : { ...headers, 'content-length': String(Buffer.byteLength(body)) }
    const request = httpsRequest(
      url,
      { ca, method, headers: all, agent: agent ?? false, timeout: 10_000 },
      (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('error', reject)
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString() }))
      },
    )
    request.on('timeout', () => request.destroy(new Error(`${url} does not answer`)))
    request.on('error', reject)
    request.end(body)
  })
