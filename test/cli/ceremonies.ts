/** Ceremonies as operators hold them: the real command in a folder of its own, and openssl as everybody else. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import type { Test } from 'tap'
import { stringify } from 'yaml'

import { bare } from '../helpers/environment.ts'
import { output, run } from '../interop/tools.ts'

export interface Ended {
  readonly code: number
  readonly out: string
  readonly err: string
}

export type Parameters = Readonly<Record<string, unknown>>

export interface Table {
  readonly folder: string
  path(name: string): string
  read(name: string): Promise<string>
  write(name: string, content: string | Buffer, mode?: number): Promise<void>
  /** `chancery ceremony …`, with what is typed; nothing typed: `--yes`. */
  hold(kind: string, name: string, options?: HoldOptions): Promise<Ended>
  /** The same, still under way. */
  begin(kind: string, name: string, options?: HoldOptions): UnderWay
  /** The same from parameters, which are written to `<name>.yaml`. */
  act(name: string, parameters: Parameters, options?: HoldOptions): Promise<Ended>
  /** A key pair and a request for it, `<name>.key` and `<name>.csr`. */
  request(name: string, algorithm: readonly string[], subject: string, more?: readonly string[]): Promise<string>
  /** Standard output of openssl, in this folder. */
  openssl(...args: readonly string[]): Promise<string>
  /** Whether `openssl verify` accepts the certificate with only this anchor; its words. */
  verify(anchor: string, certificate: string, untrusted?: readonly string[]): Promise<string>
  sha256(name: string): Promise<string>
}

export interface UnderWay {
  readonly child: ChildProcessWithoutNullStreams
  /** Resolves when it has shown this. */
  shows(text: RegExp): Promise<void>
  readonly ended: Promise<Ended>
}

export interface HoldOptions {
  readonly file?: string
  readonly typed?: string
  readonly env?: Readonly<Record<string, string>>
}

export const passphrase = 'a passphrase of this test'

export const openTable = async (t: Pick<Test, 'teardown'>): Promise<Table> => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-ceremony-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const path = (name: string): string => join(folder, name)
  const write = async (name: string, content: string | Buffer, mode = 0o644): Promise<void> => {
    await writeFile(path(name), content)
    await chmod(path(name), mode)
  }
  await write('passphrase', `${passphrase}\n`, 0o600)
  const begin: Table['begin'] = (kind, name, { file, typed, env = {} } = {}) => {
    const args = ['ceremony', kind, path(name), ...(file === undefined ? [] : [path(file)])]
    return chancery(typed === undefined ? [...args, '--yes'] : args, env)
  }
  const hold: Table['hold'] = (kind, name, options = {}) => {
    const { child, ended } = begin(kind, name, options)
    child.stdin.end(options.typed ?? '')
    return ended
  }
  return {
    folder,
    path,
    read: (name) => readFile(path(name), 'utf8'),
    write,
    begin,
    hold,
    act: async (name, parameters, options) => {
      await write(`${name}.yaml`, stringify(parameters))
      return hold(String(parameters['ceremony']), `${name}.yaml`, options)
    },
    request: async (name, algorithm, subject, more = []) => {
      const key = path(`${name}.key`)
      await output('openssl', ['genpkey', ...algorithm, '-out', key])
      const made = ['req', '-new', '-key', key, '-subj', subject, '-out', path(`${name}.csr`), ...more]
      await output('openssl', made)
      return `${name}.csr`
    },
    openssl: (...args) => output('openssl', args),
    verify: async (anchor, certificate, untrusted = []) => {
      const between = untrusted.flatMap((name) => ['-untrusted', path(name)])
      const args = ['-x509_strict', '-CAfile', path(anchor), ...between, path(certificate)]
      const { stdout, stderr } = await run('openssl', ['verify', ...args])
      return `${stdout}${stderr}`.replaceAll(`${folder}/`, '')
    },
    sha256: async (name) =>
      createHash('sha256')
        .update(await readFile(path(name)))
        .digest('hex'),
  }
}

/** Names of openssl for the keys of intermediates. */
export const opensslKeys = {
  'ec-p256': ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'],
  'ec-p384': ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-384'],
  'ml-dsa-65': ['-algorithm', 'ML-DSA-65'],
  rsa: ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:3072'],
} as const

export const fileKey = (name: string): Parameters => ({ uri: `file:${name}.key.pem`, passphraseFile: 'passphrase' })

export const rootParameters = (name: string, more: Parameters = {}): Parameters => ({
  ceremony: 'root',
  operators: ['Ada Lovelace', 'Grace Hopper'],
  key: { ...fileKey(name), algorithm: 'ec-p256' },
  subject: { organization: 'Example', commonName: `Example Root ${name}` },
  validity: { days: 7300 },
  output: { certificate: `${name}.pem`, transcript: `${name}.txt` },
  ...more,
})

export const signParameters = (root: string, name: string, more: Parameters = {}): Parameters => ({
  ceremony: 'sign',
  operators: ['Ada Lovelace'],
  key: fileKey(root),
  root: `${root}.pem`,
  request: { algorithm: 'ec-p256' },
  subject: { organization: 'Example', commonName: `Example CA ${name}` },
  validity: { days: 1825 },
  output: { certificate: `${name}.pem`, chain: `${name}.chain.pem`, transcript: `${name}.txt` },
  ...more,
})

export const crlParameters = (root: string, number: number, more: Parameters = {}): Parameters => ({
  ceremony: 'crl',
  operators: ['Ada Lovelace'],
  key: fileKey(root),
  root: `${root}.pem`,
  number,
  previous: number === 1 ? 'none' : `${root}-${number - 1}.crl`,
  validity: { days: 180 },
  revoked: [],
  output: { crl: `${root}-${number}.crl`, transcript: `${root}-${number}.crl.txt` },
  ...more,
})

export const crossParameters = (root: string, name: string, more: Parameters = {}): Parameters => ({
  ceremony: 'cross',
  operators: ['Ada Lovelace'],
  key: fileKey(root),
  root: `${root}.pem`,
  validity: { days: 1000 },
  output: { certificate: `${name}.pem`, transcript: `${name}.txt` },
  ...more,
})

const chancery = (args: readonly string[], env: Readonly<Record<string, string>>): UnderWay => {
  const child = spawn(process.execPath, ['src/main.ts', ...args], {
    cwd: join(import.meta.dirname, '..', '..'),
    // As on a machine that has nothing else: no settings of a service.
    env: { ...bare, ...env },
  })
  const said = { out: '', err: '' }
  child.stdout.on('data', (chunk: Buffer) => {
    said.out += chunk
  })
  child.stderr.on('data', (chunk: Buffer) => {
    said.err += chunk
  })
  child.stdin.on('error', () => {})
  const ended = new Promise<Ended>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => resolve({ code: code ?? -1, ...said }))
  })
  return {
    child,
    shows: async (text) => {
      while (!text.test(said.out)) await Promise.race([once(child.stdout, 'data'), ended])
    },
    ended,
  }
}
