/** A password of the database that is changed while we run: whoever changes it puts it into the file that the settings name. */

import { readFileOrPipe, readPrivateFile } from '../keys/private-file.ts'
import type { Config } from './config.ts'
import { parsePostgresUrl } from './postgres-url.ts'

/**
 * What reads the URL again; undefined where it came from no file. It rejects where anything but the password is another
 * one: which database it is, and which role, is looked at by a start only.
 */
export const renewedUrl = ({ database: { url, urlFile }, mode }: Config) =>
  url === undefined || urlFile === undefined
    ? undefined
    : async (): Promise<string> => {
        const octets = await (mode === 'production' ? readPrivateFile(urlFile) : readFileOrPipe(urlFile))
        const now = octets.toString('utf8').replace(/\r?\n$/, '')
        if (withoutPassword(now) === withoutPassword(url)) return now
        throw new Error(`${urlFile} has more than another password: restart with it.`)
      }

/** It stands before the host, or in the query; and may have an @ of its own. */
const withoutPassword = (text: string): string => {
  const url = parsePostgresUrl(text)
  url.password = ''
  url.searchParams.delete('password')
  return url.href
}
