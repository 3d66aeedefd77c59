/** What keeps a service from starting and is mended by whoever has set it up: a sentence with the setting, and no defect. */
import { resolve, sep } from 'node:path'

import type { Config } from '../config/config.ts'
import { sqlState } from '../db/errors.ts'
import { WrongSchema } from '../db/migrate.ts'
import { isProblem } from '../errors.ts'
import { TokenFault } from '../keys/pkcs11/token-fault.ts'
import { Failure } from '../lib/failure.ts'
import { SettingFault } from '../lib/setting-fault.ts'
import { explainUnavailable } from './database-fault.ts'

/** Throws these as a `Failure`; anything else as it is. */
export const explainStart =
  ({ dataDir }: Pick<Config, 'dataDir'>) =>
  (error: unknown): never => {
    if (error instanceof SettingFault)
      throw new Failure('usage', [error.message, error.advice].filter(Boolean).join(' '))
    // Of the embedded database: one that is named is opened with a sentence of its own.
    if (error instanceof WrongSchema) throw new Failure('usage', error.message)
    // Of a first start, which makes its keys there: later ones start without it.
    if (error instanceof TokenFault) throw new Failure('usage', error.message)
    if (isProblem(error) || sqlState(error) !== undefined) return explainUnavailable(error)
    const { code, path } = error as NodeJS.ErrnoException
    const reason = path !== undefined && isOneWay(resolve(path), resolve(dataDir)) ? reasons[code ?? ''] : undefined
    if (reason === undefined) throw error
    throw new Failure(
      'usage',
      `The data folder ${dataDir} cannot be used: ${reason}, ${path} (${code}); mend that, or name another by CHANCERY_DATA.`,
    )
  }

/** One of the two lies below the other, or they are the same. */
const isOneWay = (one: string, other: string): boolean =>
  `${one}${sep}`.startsWith(`${other}${sep}`) || `${other}${sep}`.startsWith(`${one}${sep}`)

const reasons: Readonly<Record<string, string>> = {
  EEXIST: 'there is a file, or a link that leads nowhere, in the place of a folder',
  ENOTDIR: 'there is a file in the place of a folder',
  EACCES: 'the system does not let this account make or read it',
  EPERM: 'the system does not let anybody make it',
  EROFS: 'nothing can be written there',
  ENOSPC: 'the disk is full',
  EDQUOT: 'the disk is full for this account',
  ENOENT: 'it cannot be made',
}
