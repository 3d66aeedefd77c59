/** Tokens of a SoftHSM of this test's own, and a module before it that misbehaves on command (`shim.c`). */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { cp, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

import type { Test } from 'tap'

const run = promisify(execFile)
const home = join(import.meta.dirname, '..', '..')

export interface SoftHsm {
  /** The library, with whose settings it is used. */
  readonly module: string
  readonly env: Readonly<Record<string, string>>
  readonly folder: string
  readonly pinFile: string
  /** Another token beside the first, `ca`. */
  addToken(label: string): Promise<void>
  setPin(pin: string): Promise<void>
  /** Takes all tokens away, as if somebody had pulled the device; and gives them back. */
  pull(): Promise<void>
  plug(): Promise<void>
  /** Keeps what the tokens hold, and puts it back. */
  save(): Promise<() => Promise<void>>
  /** What pkcs11-tool says, logged in. */
  tool(...args: readonly string[]): Promise<string>
}

export const openSoftHsm = async (t: Pick<Test, 'teardown'>): Promise<SoftHsm> => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-hsm-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const tokens = join(folder, 'tokens')
  const conf = join(folder, 'softhsm2.conf')
  const pinFile = join(folder, 'pin')
  await mkdir(tokens)
  await writeFile(conf, `directories.tokendir = ${tokens}\nobjectstore.backend = file\nlog.level = ERROR\n`)
  const module = modules.find(existsSync)
  if (module === undefined) throw new Error('SoftHSM is not installed (Debian: softhsm2)')
  const env = { SOFTHSM2_CONF: conf }
  const addToken = async (label: string): Promise<void> => {
    const args = ['--init-token', '--free', '--label', label, '--pin', '1234', '--so-pin', '12345678']
    await run('softhsm2-util', args, { env: { ...process.env, ...env } })
  }
  const setPin = (pin: string): Promise<void> => writeFile(pinFile, `${pin}\n`, { mode: 0o600 })
  await addToken('ca')
  await setPin('1234')
  return {
    module,
    env,
    folder,
    pinFile,
    addToken,
    setPin,
    pull: () => rename(tokens, `${tokens}.away`),
    plug: () => rename(`${tokens}.away`, tokens),
    save: async () => {
      const saved = await mkdtemp(join(folder, 'saved-'))
      await cp(tokens, saved, { recursive: true })
      return async () => {
        await rm(tokens, { recursive: true })
        await cp(saved, tokens, { recursive: true })
      }
    },
    tool: async (...args) => {
      const all = ['--module', module, '--token-label', 'ca', '--login', '--pin', '1234', ...args]
      return (await run('pkcs11-tool', all, { env: { ...process.env, ...env } })).stdout
    },
  }
}

export interface Shim extends SoftHsm {
  /** Words of `shim.c`, a line each; none: behaves. */
  misbehave(...words: readonly string[]): Promise<void>
  /** Once a word that ends in "-once" has acted. */
  misbehaved(): Promise<void>
  /** How often anybody has tried to log in. */
  logins(): Promise<number>
}

/** The same through the shim. */
export const openShim = async (t: Pick<Test, 'teardown'>): Promise<Shim> => {
  const hsm = await openSoftHsm(t)
  const shim = join(hsm.folder, 'shim.so')
  const control = join(hsm.folder, 'control')
  const logins = join(hsm.folder, 'logins')
  const headers = join(home, 'node_modules', 'pkcs11js', 'includes', 'pkcs11')
  await run('gcc', [
    '-shared',
    '-fPIC',
    '-o',
    shim,
    `-I${headers}`,
    join(import.meta.dirname, 'shim.c'),
    '-ldl',
    '-lpthread',
  ])
  return {
    ...hsm,
    module: shim,
    env: { ...hsm.env, SHIM_MODULE: hsm.module, SHIM_CONTROL: control, SHIM_LOGINS: logins },
    misbehave: async (...words) => {
      // Whole or not at all: it is read at each call.
      await writeFile(`${control}.new`, words.map((word) => `${word}\n`).join(''))
      await rename(`${control}.new`, control)
    },
    misbehaved: async () => {
      while (existsSync(control)) await sleep(2)
    },
    logins: async () => (await readFile(logins, 'utf8').catch(() => '')).split('\n').length - 1,
  }
}

const modules = [
  '/usr/lib/softhsm/libsofthsm2.so',
  '/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so',
  '/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so',
  '/usr/local/lib/softhsm/libsofthsm2.so',
  '/opt/homebrew/lib/softhsm/libsofthsm2.so',
]
