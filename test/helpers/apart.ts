import { execFile } from 'node:child_process'

/**
 * Lets folders in this one lie apart from each other (chattr(1), T): before ext4 makes a file, it looks at every one near it
 * that was removed in the last minutes, and tests make and remove them all the time. Where there is no such thing, nothing
 * happens.
 */
export const setApart = (folder: string): Promise<void> =>
  new Promise((resolve) => execFile('chattr', ['+T', folder], { timeout: 5_000 }, () => resolve()))
