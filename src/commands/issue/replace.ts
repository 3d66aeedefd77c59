/** Files and links that others may read at any time: each is whole, or what was there before. */
import { randomUUID } from 'node:crypto'
import type { Stats } from 'node:fs'
import { chown, open, rename, rm, symlink } from 'node:fs/promises'

/** Whole or not at all, with the owner and mode of another; a power cut may still take it until the folder is synced. */
export const replaceFile = async (path: string, text: string, like?: Stats): Promise<void> => {
  const draft = `${path}.${randomUUID()}`
  try {
    await writeWhole(draft, text, like === undefined ? 0o644 : like.mode & 0o777)
    if (like !== undefined) await chown(draft, like.uid, like.gid)
    await rename(draft, path)
  } catch (error) {
    // On a full disk each try would leave one.
    await rm(draft, { force: true })
    throw error
  }
}

/** A link that leads elsewhere from then on. */
export const replaceLink = async (path: string, target: string): Promise<void> => {
  const draft = `${path}.${randomUUID()}`
  await symlink(target, draft)
  await rename(draft, path)
}

/** Never through a file that is there, and with this mode whatever the umask. */
export const writeWhole = async (path: string, text: string, mode: number): Promise<void> => {
  await rm(path, { force: true })
  const file = await open(path, 'wx', mode)
  try {
    await file.chmod(mode)
    await file.writeFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
}
