/**
 * As whom the server runs. PostgreSQL refuses uid 0, so root has to be somebody else for it:
 * in a user namespace that maps root away, where files of root stay reachable; or, where the system refuses that,
 * under an unprivileged account, with data and programs in folders that this account can reach.
 */
import { execFile, spawn } from 'node:child_process'
import { cp, lchown, mkdtemp, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'

import { makeFolder, withItself } from '../../lib/fs.ts'
import { SettingFault } from '../../lib/setting-fault.ts'
import type { Log } from '../../log.ts'
import { type Binaries, binariesIn, cleanEnvironment } from './binaries.ts'

export interface Account {
  /** For people: "as uid 1000", "as root, mapped to nobody in a user namespace", "as the account postgres". */
  readonly how: string
  /** The program and arguments that go in front of a command. */
  readonly wrapper: readonly string[]
  /** For spawn: whom to become. */
  readonly identity: { readonly uid?: number; readonly gid?: number }
  /** Programs that this account can execute. */
  readonly binaries: Binaries
  /** A folder of its own for the cluster, where the account cannot reach Chancery's data folder. */
  readonly elsewhere?: string
}

/** For a cluster that is yet to be made in `folder`, which exists. */
export const decideAccount = async (folder: string, binaries: Binaries, log: Log): Promise<Account> => {
  const { account, refusal } = await asWeAre(folder, binaries)
  if (account !== undefined) return account
  if (!isRoot()) throw new SettingFault(`PostgreSQL does not run here as uid ${self()}: ${refusal}.`)
  log.warn(
    { event: 'embedded.namespace', reason: refusal },
    'no user namespace for the embedded PostgreSQL; trying an unprivileged account',
  )
  for (const name of accounts) {
    const other = await asAccount(name, binaries)
    if (other !== undefined) return { ...other, elsewhere: await makeElsewhere(other) }
  }
  throw new SettingFault(
    `PostgreSQL does not run as root, a user namespace is refused here (${refusal}), and none of the accounts ${accounts.join(', ')} exists. ` +
      'Run Chancery as an ordinary user, or set CHANCERY_DATABASE_URL.',
  )
}

/** For a cluster that exists: whoever owns it runs it. */
export const accountOf = async (cluster: string, binaries: Binaries): Promise<Account> => {
  const owner = (await stat(cluster)).uid
  if (owner === self()) {
    const { account, refusal } = await asWeAre(cluster, binaries)
    if (account !== undefined) return account
    throw new SettingFault(
      `The embedded PostgreSQL was set up by uid ${owner} and does not run as that any more (${refusal}). ` +
        'Allow user namespaces, or give the whole data folder to an ordinary user and run Chancery as that one.',
    )
  }
  if (!isRoot()) {
    throw new SettingFault(
      `${cluster} belongs to uid ${owner} and we are uid ${self()}; run Chancery as its owner, or give the whole data folder to this user.`,
    )
  }
  const account = await asAccount(String(owner), binaries)
  if (account !== undefined) return account
  throw new SettingFault(
    `${cluster} belongs to uid ${owner}, which does not exist here; give the folder to an account that does.`,
  )
}

/** Runs one of PostgreSQL's programs to its end and gives what it printed. Rejects with the program's last words. */
export const runAs = (account: Account, command: readonly string[], input = ''): Promise<string> => {
  const [program = '', ...args] = [...account.wrapper, ...command]
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: '/', env: cleanEnvironment(), ...account.identity, stdio: 'pipe' })
    const said: Buffer[] = []
    // initdb tells at length what it does, and apart from that what is wrong.
    const faults: Buffer[] = []
    child.stdout.on('data', (chunk: Buffer) => said.push(chunk))
    child.stderr.on('data', (chunk: Buffer) => {
      said.push(chunk)
      faults.push(chunk)
    })
    child.stdin.on('error', () => {})
    child.once('error', reject)
    child.once('close', (code, signal) => {
      const text = Buffer.concat(code === 0 || faults.length === 0 ? said : faults)
        .toString('utf8')
        .trim()
      if (code === 0) resolve(text)
      else reject(faultOf(`${command[0]} ended with ${signal ?? code}: ${text.slice(-2_000)}`))
    })
    child.stdin.end(input)
  })
}

/** What one of its programs has said as it ended, with what to do where only the system's bound on open files is in its way. */
export const faultOf = (told: string): Error =>
  told.includes('insufficient file descriptors')
    ? new SettingFault(`${told}\nAllow more open files (ulimit -n, LimitNOFILE).`)
    : new Error(told)

/** As the user we are: plainly, or mapped to nobody, which helps root and a uid that no account has. */
const asWeAre = async (folder: string, binaries: Binaries): Promise<{ account?: Account; refusal?: string }> => {
  const plain: Account = { how: `as uid ${self()}`, wrapper: [], identity: {}, binaries }
  if (!isRoot() && (await whyNot(plain, folder)) === undefined) return { account: plain }
  const mapped: Account = {
    ...plain,
    how: `as ${isRoot() ? 'root' : `uid ${self()}`}, mapped to nobody in a user namespace`,
    wrapper: ['unshare', '--user', `--map-user=${nobody}`, `--map-group=${nobody}`, '--'],
  }
  const refusal = await whyNot(mapped, folder)
  return refusal === undefined ? { account: mapped } : { refusal }
}

/** Undefined where there is no such account. */
const asAccount = async (name: string, binaries: Binaries): Promise<Account | undefined> => {
  const ids = await Promise.all([id('-u', name), id('-g', name), id('-un', name)]).catch(() => undefined)
  if (ids === undefined) return undefined
  const [uid, gid, known] = ids
  const account: Account = {
    how: `as the account ${known}`,
    wrapper: [],
    identity: { uid: Number(uid), gid: Number(gid) },
    binaries,
  }
  if ((await whyNot(account, '/')) === undefined) return account
  return { ...account, binaries: await copyBinaries(binaries) }
}

const self = (): number => process.geteuid?.() ?? 0
const isRoot = (): boolean => self() === 0

const id = async (option: string, name: string): Promise<string> =>
  (await promisify(execFile)('id', [option, name])).stdout.trim()

/** Why this account cannot run PostgreSQL on `folder`: undefined if it can. Tried, because nothing else tells. */
const whyNot = async (account: Account, folder: string): Promise<string | undefined> => {
  const { postgres, folder: programs } = account.binaries
  try {
    await runAs(account, ['sh', '-c', probe, 'sh', postgres, join(programs, 'share'), folder])
    return undefined
  } catch (error) {
    return error instanceof Error ? (error.message.split('\n').at(-1) ?? '') : String(error)
  }
}

/** initdb needs a name for its uid; "/" is only ever looked at. */
const probe = `
  id -un >/dev/null || exit 1
  "$1" --version >/dev/null || exit 1
  test -r "$2" || { echo "cannot read $2" >&2; exit 1; }
  test "$3" = / || test -w "$3" || { echo "cannot write to $3" >&2; exit 1; }`

/** Where accounts without a home keep things. */
const makeElsewhere = async ({ identity: { uid = 0, gid = 0 } }: Account): Promise<string> => {
  await makeFolder(shelter, 0o755)
  const folder = await mkdtemp(join(shelter, 'postgres-'))
  await lchown(folder, uid, gid)
  return folder
}

/** The programs, where every account can execute them. Kept: 60 MB for each version. */
const copyBinaries = async (binaries: Binaries): Promise<Binaries> => {
  const target = join(shelter, `programs-${binaries.version}`)
  const copied = (): Promise<Binaries> => binariesIn(join(target, 'native'))
  return copied().catch(async () => {
    await copyTo(target, binaries)
    return copied()
  })
}

const copyTo = async (target: string, { folder }: Binaries): Promise<void> => {
  await makeFolder(dirname(target), 0o755)
  const temporary = await mkdtemp(`${target}-`)
  try {
    await withItself(temporary, (folder) => folder.chmod(0o755))
    await cp(folder, join(temporary, 'native'), { recursive: true, verbatimSymlinks: true })
    // Another may have been quicker; then its copy serves us as well.
    await rename(temporary, target).catch(() => {})
  } finally {
    await rm(temporary, { recursive: true, force: true })
  }
}

/** The overflow uid, which is called nobody nearly everywhere. */
const nobody = 65534
const accounts = ['postgres', 'nobody', 'daemon'] as const
const shelter = '/var/lib/chancery'
