/** Files that settings name, and requests are decided by: read before anything else is opened, and all faults told at once. */
import type { ClientAnchors } from '../ca/access/client-trust.ts'
import type { Config } from '../config/config.ts'
import { loadBlockLists } from '../keys/block-lists.ts'
import { blameFile, SettingFault } from '../lib/setting-fault.ts'
import type { KeyBlockList } from '../x509/keys.ts'
import { openAnchorFile } from './authentication.ts'

export interface SettingFiles {
  readonly isBlocked: KeyBlockList
  readonly anchors: ClientAnchors
}

/** Rejects with a `SettingFault`, a line for each file. */
export const readSettingFiles = async (config: Config): Promise<SettingFiles> => {
  const { badkeys, spki } = config.keys.blocked
  const read = [
    loadBlockLists(badkeys === undefined ? {} : { badkeys }).catch(blameFile('CHANCERY_BADKEYS_LIST')),
    loadBlockLists(spki === undefined ? {} : { spki }).catch(blameFile('CHANCERY_BLOCKED_KEYS')),
    openAnchorFile(config).catch(blameFile('CHANCERY_CLIENT_CA')),
  ] as const
  const faults = (await Promise.allSettled(read)).flatMap((one) =>
    one.status === 'rejected' ? [one.reason as SettingFault] : [],
  )
  const [fault] = faults
  if (fault) throw faults.length === 1 ? fault : new SettingFault(faults.map(textOf).join('\n'), { cause: fault })
  const [isBadKey, isListed, anchors] = await Promise.all(read)
  return { isBlocked: (...key) => isBadKey(...key) || isListed(...key), anchors }
}

const textOf = ({ message, advice }: SettingFault): string => [message, advice].filter(Boolean).join(' ')
