/** Files and links that others may read at any time: each is whole, or what was there before. */
import { randomUUID } from 'node:crypto'
import type { Stats } from 'node:fs'
import { lstat, open, readdir, rename, rm, symlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

/** Whole or not at all, with the owner and mode of another; a power cut may still take it until the folder is synced. */
export const replaceFile = async (path: string, text: string, like?: Stats): Promise<void> => {
  const draft = `${path}.${randomUUID()}`
  try {
    await writeWhole(draft, text, like === undefined ? 0o644 : like.mode & 0o777, like)
    await rename(draft, path)
  } catch (error) {
    // On a full disk each try would leave one.
    await rm(draft, { force: true })
    throw error
  }
}

/**
 * What a command that was killed has left half made of these files, all in one folder. Another one may be at it right now, so only
 * what is old; and what another account has put there under such a name is not ours. Where it cannot go, it stays.
 */
export const sweepDrafts = async (paths: readonly string[]): Promise<void> => {
  const folder = dirname(paths[0] ?? '.')
  const files = new Set(paths.map((path) => basename(path)))
  for (const name of await readdir(folder).catch(() => [])) {
    const of = name.replace(draftForm, '')
    if (of === name || !files.has(of)) continue
    const draft = join(folder, name)
    if (await isAbandoned(draft, join(folder, of))) await rm(draft, { force: true }).catch(() => {})
  }
}

/** A file by itself, and no link, of whoever runs this, or of whom what is in its place is: it may have been given away already. */
const isAbandoned = async (draft: string, path: string): Promise<boolean> => {
  const [found, there] = await Promise.all([draft, path].map((one) => lstat(one).catch(() => undefined)))
  if (!found?.isFile() || found.nlink !== 1) return false
  return [process.geteuid?.(), there?.uid].includes(found.uid) && Date.now() - found.mtimeMs > abandonedMs
}

/** A link that leads elsewhere from then on. */
export const replaceLink = async (path: string, target: string): Promise<void> => {
  const draft = `${path}.${randomUUID()}`
  await symlink(target, draft)
  await rename(draft, path)
}

/**
 * Never through a file that is there, and with this mode whatever the umask. The owner is given to what was opened: whoever may write
 * in the folder could put a link in its place meanwhile.
 */
export const writeWhole = async (
  path: string,
  text: string,
  mode: number,
  owner?: Pick<Stats, 'uid' | 'gid'>,
): Promise<void> => {
  await rm(path, { force: true })
  const file = await open(path, 'wx', mode)
  try {
    if (owner !== undefined) await file.chown(owner.uid, owner.gid)
    await file.chmod(mode)
    await file.writeFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
}

/** As `replaceFile` and private files name what they write first. */
export const draftForm = /\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
/** Writing takes milliseconds. */
export const abandonedMs = 600_000
