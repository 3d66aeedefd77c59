/**
 * The folder where a certificate lives. Its files are links into `.chancery/current`, which is itself a link to the
 * folder of one certificate with its key: a rename of that link changes all of them at once, so that nobody ever sees the
 * key of one certificate beside another, whenever the power fails. A key whose certificate is asked for waits apart, with
 * the Idempotency-Key of the question, until the answer is written.
 *
 *     web/key.pem                  → .chancery/current/key.pem       (and so on)
 *     web/.chancery/current        → versions/<serial>
 *     web/.chancery/versions/…       each certificate with all that belongs to it; the last one is kept
 *     web/.chancery/pending.json     only we may read it
 *     web/.chancery/lock             while an answer is put in its place
 */
import { createPrivateKey, hash, X509Certificate } from 'node:crypto'
import { lstatSync } from 'node:fs'
import { lstat, mkdtemp, readdir, readFile, readlink, rename, rm, stat, symlink } from 'node:fs/promises'
import { join, resolve } from 'node:path'

import { createPrivateFile, writePrivateFile } from '../../keys/private-file.ts'
import { Failure } from '../../lib/failure.ts'
import { ifMissing, makeFolder, syncFolder, withItself } from '../../lib/fs.ts'
import { isAtWork, newHolder, withLock } from '../../lib/lock.ts'
import { serialOf } from './issued.ts'
import { type Access, assertOurFolder, assertOwner, give, giveAll, type OrderAccess, orderName } from './owner.ts'
import { abandonedMs, draftForm, replaceFile, replaceLink, writeWhole } from './replace.ts'

/** PEM each: what a folder shows, by the names of its files. */
export interface Contents {
  readonly 'key.pem': string
  readonly 'certificate.pem': string
  /** What is above the certificate, without the root. */
  readonly 'chain.pem': string
  /** Certificate and chain. */
  readonly 'fullchain.pem': string
  readonly 'root.pem': string
}

/** A certificate that is in its place. */
export interface Held {
  readonly serial: string
  readonly notBefore: Date
  readonly notAfter: Date
  /** SHA-256 of its DER. */
  readonly digest: Buffer
  readonly certificatePem: string
  readonly keyPem: string
  /** Of what it was asked for by. */
  readonly orderDigest: string
  /** Whoever uses it has not been told of it yet. */
  readonly untold: boolean
}

/** A question that may have been answered, though we have not seen it. */
export interface Pending {
  readonly orderDigest: string
  readonly idempotencyKey: string
  readonly keyPem: string
  readonly csr: string
  /** The serial of the certificate that renews itself by this; absent where it is asked for as the first one was. */
  readonly replaces?: string
  /** Who has written it down, for other commands, and when (RFC 3339). */
  readonly by?: string
  readonly at?: string
  /** Until when people may approve it (RFC 3339), where they have to. */
  readonly awaitedUntil?: string
}

export interface Folder {
  readonly path: string
  /** The certificate in its place; undefined where there is none yet, or none with its key. */
  held(): Promise<Held | undefined>
  pending(): Promise<Pending | undefined>
  /** Durable when it resolves; to what is there, where another was quicker. */
  keep(pending: Pending): Promise<Pending>
  /** People must approve what was asked, until then. */
  awaits(pending: Pending, until: string): Promise<void>
  forget(pending: Pending): Promise<void>
  /**
   * Shows these in place of those that are there, all at once, durably, and forgets the question. Whose answer another
   * command has put there meanwhile does nothing: there may be a newer one by now. `untold`: remember that somebody must be told.
   */
  install(contents: Contents, about: { readonly pending: Pending; readonly untold: boolean }): Promise<void>
  /** Who uses the certificate with this serial has been told of it. */
  told(serial: string): Promise<void>
  /** A file of our own beside these, whole or not at all. */
  note(name: string, text: string): Promise<void>
  /** What it says; undefined where there is none. */
  noted(name: string): Promise<string | undefined>
}

/**
 * Makes it where it is missing, and gives what is there to whom it is to be given. Throws a usage failure where it cannot be
 * written, or holds files that are not ours.
 */
export const openFolder = async (path: string, options: OrderAccess = {}): Promise<Folder> => {
  const own = join(path, '.chancery')
  const pendingFile = join(own, 'pending.json')
  // Each time: a daemon lives longer than many a folder.
  const prepare = async (): Promise<void> => {
    await makeFolders(path, own)
    await assertOurs(path)
  }
  await orUsage(path, async () => {
    await prepare()
    await sweep(own)
    await giveAll(join(own, 'versions'), fileNames, options)
  })
  const alone = async <T>(work: () => Promise<T>): Promise<T> => {
    await prepare()
    return withLock(join(own, 'lock'), work)
  }
  return {
    path,
    held: async () => {
      const held = await readHeld(join(own, 'current'))
      // Somebody may have taken one away.
      if (held !== undefined) await orUsage(path, () => prepare().then(() => link(path)))
      return held
    },
    pending: () => readPending(pendingFile),
    keep: (pending) =>
      orUsage(path, async () => {
        await prepare()
        if (options.owner !== undefined) await assertOwner(own, options.owner)
        return keep(pendingFile, { ...pending, by: newHolder(), at: new Date().toISOString() })
      }),
    awaits: (pending, until) => orUsage(path, () => alone(() => awaits(pendingFile, pending, until))),
    forget: (pending) => orUsage(path, () => alone(async () => forget(pendingFile, pending))),
    install: (contents, { pending, untold }) =>
      orUsage(path, () =>
        alone(async () => {
          if (!(await isThere(pendingFile, pending))) return
          await install(path, { contents, orderDigest: pending.orderDigest, untold }, options)
          await forget(pendingFile, pending)
        }),
      ),
    told: async (serial) => {
      const version = join(own, 'versions', serial)
      await rm(join(version, untoldName), { force: true })
      // Another command may have put newer ones in its place meanwhile.
      await syncFolder(version).catch(ifMissing)
    },
    note: (name, text) => orUsage(path, () => replaceFile(join(own, name), text)),
    noted: (name) => readOwn(join(own, name)),
  }
}

/** Whoever may enter the folder may enter what its links lead to, whatever the umask: what is secret there is a file's own. */
const makeFolders = async (path: string, own: string): Promise<void> => {
  await makeFolder(path)
  for (const folder of [own, join(own, 'versions')]) {
    if (await makeFolder(folder)) await withItself(folder, (itself) => itself.chmod(0o755))
    await assertOurFolder(folder)
  }
}

/** What stands there must be a link of ours: a key that somebody else has made is never overwritten. */
const assertOurs = async (path: string): Promise<void> => {
  for (const name of fileNames) {
    const place = join(path, name)
    if ((await lstat(place).catch(ifMissing)) === undefined) continue
    const target = await readlink(place).catch(() => undefined)
    if (target === linkTarget(name)) continue
    throw new Failure('usage', `${place} is there and was not made here; name another folder, or move it away.`)
  }
}

const readHeld = async (current: string): Promise<Held | undefined> => {
  try {
    // Resolved once: what is read below belongs together, whatever another command does meanwhile.
    const version = join(current, '..', await readlink(current))
    const [pem, keyPem, orderDigest, untold] = await Promise.all([
      readFile(join(version, 'certificate.pem'), 'utf8'),
      readFile(join(version, 'key.pem'), 'utf8'),
      readFile(join(version, orderName), 'utf8'),
      stat(join(version, untoldName)).catch(ifMissing),
    ])
    const certificate = new X509Certificate(pem)
    if (!isPair(certificate, keyPem)) return undefined
    return {
      serial: serialOf(certificate),
      notBefore: certificate.validFromDate,
      notAfter: certificate.validToDate,
      digest: hash('sha256', certificate.raw, 'buffer'),
      certificatePem: pem,
      keyPem,
      orderDigest: orderDigest.trim(),
      untold: untold !== undefined,
    }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return undefined
    const hint = isForbidden(code) ? runAsOwner : 'Remove that link, and a new certificate is asked for'
    throw new Failure('usage', `What ${resolve(current)} leads to cannot be read: ${message}. ${hint}.`)
  }
}

/** Whoever has damaged the key has left a certificate that is of no use, and renews nothing. */
const isPair = (certificate: X509Certificate, keyPem: string): boolean => {
  try {
    return certificate.checkPrivateKey(createPrivateKey(keyPem))
  } catch {
    return false
  }
}

/** Whether another command is waiting for the answer: it may have been ended, and its number be another's by now. */
export const isUnderWay = ({ by = '', at = '' }: Pending): boolean =>
  Math.abs(Date.now() - Date.parse(at)) < longestQuestionMs && isAtWork(by)

const readPending = async (file: string): Promise<Pending | undefined> => {
  const text = await readOwn(file)
  if (text === undefined) return undefined
  const pending = parsePending(text)
  if (pending !== undefined) return pending
  throw new Failure('usage', `${file} is not what was written there. Remove it, and a new certificate is asked for.`)
}

/** Undefined where there is none. */
const readOwn = (file: string): Promise<string | undefined> =>
  readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    const { code } = error
    if (code === 'ENOENT') return undefined
    throw new Failure('usage', `${file} cannot be read (${code}). ${isForbidden(code) ? runAsOwner : 'Remove it'}.`)
  })

const isForbidden = (code: string | undefined): boolean => code === 'EACCES' || code === 'EPERM'
const runAsOwner = 'Run this as whom it belongs to'

const parsePending = (text: string): Pending | undefined => {
  try {
    const pending = JSON.parse(text) as Pending
    const { orderDigest, idempotencyKey, keyPem, csr, replaces = '', by = '', at = '', awaitedUntil = '' } = pending
    const members = [orderDigest, idempotencyKey, keyPem, csr, replaces, by, at, awaitedUntil]
    const isWhole = members.every((member) => typeof member === 'string')
    return isWhole ? pending : undefined
  } catch {
    return undefined
  }
}

const isThere = async (file: string, { idempotencyKey }: Pending): Promise<boolean> =>
  (await readPending(file))?.idempotencyKey === idempotencyKey

const keep = async (file: string, pending: Pending): Promise<Pending> => {
  for (;;) {
    try {
      await createPrivateFile(file, JSON.stringify(pending))
      return pending
    } catch (error) {
      ifThere(error as NodeJS.ErrnoException)
    }
    const other = await readPending(file)
    // It went just now, with its answer.
    if (other !== undefined) return other
  }
}

const awaits = async (file: string, pending: Pending, until: string): Promise<void> => {
  const there = await readPending(file)
  if (there?.idempotencyKey !== pending.idempotencyKey || there.awaitedUntil === until) return
  await writePrivateFile(file, JSON.stringify({ ...there, awaitedUntil: until }))
}

const forget = async (file: string, pending: Pending): Promise<void> => {
  // Another command may have its answer already, and a new question there.
  if (await isThere(file, pending)) await rm(file, { force: true })
}

interface Version {
  readonly contents: Contents
  readonly orderDigest: string
  readonly untold: boolean
}

const install = async (path: string, version: Version, options: Access): Promise<void> => {
  const own = join(path, '.chancery')
  const serial = serialOf(new X509Certificate(version.contents['certificate.pem']))
  const draft = await fill(own, version, options)
  await rename(draft, join(own, 'versions', serial)).catch(async (error: NodeJS.ErrnoException) => {
    // The same answer to the same question, seen by another command.
    await rm(draft, { recursive: true, force: true })
    if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error
  })
  await syncFolder(join(own, 'versions'))
  // They lead nowhere at first, and appear together below.
  await link(path)
  const before = await readlink(join(own, 'current')).catch(ifMissing)
  await replaceLink(join(own, 'current'), join('versions', serial))
  await syncFolder(own)
  await dropVersions(own, [`versions/${serial}`, before])
}

const link = async (path: string): Promise<void> => {
  const missing = fileNames.filter((name) => lstatSync(join(path, name), { throwIfNoEntry: false }) === undefined)
  for (const name of missing) await symlink(linkTarget(name), join(path, name)).catch(ifThere)
  if (missing.length > 0) await syncFolder(path)
}

/** A folder with everything of one certificate, that nobody sees yet; where it cannot be filled, nothing is left of it. */
const fill = async (own: string, version: Version, options: Access): Promise<string> => {
  const draft = await mkdtemp(join(own, 'new-'))
  try {
    await fillDraft(draft, version, options)
    return draft
  } catch (error) {
    await rm(draft, { recursive: true, force: true })
    throw error
  }
}

const fillDraft = async (draft: string, { contents, orderDigest, untold }: Version, access: Access): Promise<void> => {
  for (const name of fileNames) await writeWhole(join(draft, name), contents[name], name === 'key.pem' ? 0o600 : 0o644)
  await writeWhole(join(draft, orderName), `${orderDigest}\n`, 0o644)
  if (untold) await writeWhole(join(draft, untoldName), '', 0o644)
  await give(draft, fileNames, { keyMode: 0o600, ...access })
  await withItself(draft, (folder) => folder.chmod(0o755))
  await syncFolder(draft)
}

const dropVersions = async (own: string, kept: readonly (string | undefined)[]): Promise<void> => {
  for (const name of await readdir(join(own, 'versions')))
    if (versionForm.test(name) && !kept.includes(`versions/${name}`))
      await rm(join(own, 'versions', name), { recursive: true, force: true })
}

/** What a crash has left half made; another command may be at it right now, so only what is old. */
const sweep = async (own: string): Promise<void> => {
  for (const name of await readdir(own)) {
    if (!isDraft(name)) continue
    const made = await stat(join(own, name)).catch(ifMissing)
    if (made && Date.now() - made.mtimeMs > abandonedMs) await rm(join(own, name), { recursive: true, force: true })
  }
}

const orUsage = async <T>(path: string, work: () => Promise<T>): Promise<T> => {
  try {
    return await work()
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException
    if (syscall === undefined) throw error
    throw new Failure('usage', `${resolve(path)} cannot be written (${code}).`)
  }
}

const ifThere = (error: NodeJS.ErrnoException): void => {
  if (error.code !== 'EEXIST') throw error
}

export const fileNames = ['key.pem', 'certificate.pem', 'chain.pem', 'fullchain.pem', 'root.pem'] as const
const linkTarget = (name: string): string => join('.chancery', 'current', name)
const untoldName = 'untold'
/** A version that nobody sees yet, and files that have no name yet, one of which has a key in it. */
const isDraft = (name: string): boolean => name.startsWith('new-') || draftForm.test(name)
/** A serial: nothing else was made here, or is removed. */
const versionForm = /^[0-9a-f]{32,40}$/
/** People may take as long to approve it. */
const longestQuestionMs = 24 * 3_600_000
