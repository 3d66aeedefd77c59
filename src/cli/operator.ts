/** Who runs a command beside the service, as far as the system knows: for the records. */
import { userInfo } from 'node:os'

/** `os:` and the account, or who has become it by sudo. Never a principal: these have other names. */
export const operator = (): string => `os:${process.env['SUDO_USER'] || account()}`

/** In a container it may have a number only. */
const account = (): string => {
  try {
    return userInfo().username
  } catch {
    return String(process.getuid?.() ?? 'unknown')
  }
}
