import { readFileSync } from 'node:fs'

/** The version of this installation, as its package.json has it: two folders up from src/ and from dist/ alike. */
export const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  readonly version: string
}
