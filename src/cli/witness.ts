/** `chancery witness`: a small process of somebody else's, that watches rolls grow. It shares nothing with the service. */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { dirname, resolve } from 'node:path'

import { parse } from 'yaml'

import { verifyEd25519 } from '../keys/note-signatures.ts'
import { createPrivateFile, readPrivateFile } from '../keys/private-file.ts'
import { isObject } from '../lib/canonical-json.ts'
import { Failure } from '../lib/failure.ts'
import { readGivenText } from '../lib/input-files.ts'
import { sha256 } from '../lib/sha256.ts'
import type { Log } from '../log.ts'
import { codec } from '../server/codec.ts'
import { isRollFault } from '../tlog/fault.ts'
import { encodeVerifierKey, makeVerifierKey, parseVerifierKey, type VerifierKey } from '../tlog/note.ts'
import { openWitnessServer, type WitnessServer } from '../witness/server.ts'
import { openWitnessState } from '../witness/state.ts'
import { openWitness } from '../witness/witness.ts'
import { untilStopped } from './stop.ts'

/** What the file says. Paths are relative to it. */
export interface WitnessSettings {
  readonly name: string
  readonly listen: { readonly host: string; readonly port: number }
  readonly key: string
  readonly state: string
  readonly logs: readonly VerifierKey[]
}

export interface RunningWitness extends WitnessServer {
  /** Its verifier key, for those who trust it. */
  readonly key: string
}

/** Serves until it is closed. Makes its key where there is none. */
export const serveWitness = async (settings: WitnessSettings, log: Log): Promise<RunningWitness> => {
  const key = await openKey(settings)
  const verifier = verifierOf(settings.name, key)
  const state = await openWitnessState(settings.state)
  const witness = openWitness({
    logs: settings.logs,
    signer: { key: verifier, sign: (message) => sign(null, message, key) },
    state,
    hasher: codec.hasher,
    verify: verifyEd25519,
    now: () => Math.floor(Date.now() / 1000),
  })
  const server = await openWitnessServer({ witness, listen: settings.listen, log })
  return { ...server, key: encodeVerifierKey(verifier) }
}

export const runWitness = async (path: string, log: Log, stop: AbortSignal): Promise<void> => {
  const settings = await readWitnessSettings(path)
  const { url, key, close } = await serveWitness(settings, log).catch((error: Error) => {
    throw new Failure('usage', error.message)
  })
  process.stdout.write(
    `${settings.name} cosigns ${settings.logs.map(({ name }) => name).join(', ')} at ${url}\n  ${key}\n`,
  )
  await untilStopped(stop)
  await close()
}

/** All that is wrong with it, in one sentence. */
export const readWitnessSettings = async (path: string): Promise<WitnessSettings> => {
  const text = await readGivenText(path)
  const faults: string[] = []
  const at = (file: unknown, field: string): string => {
    if (typeof file === 'string' && file !== '') return resolve(dirname(path), file)
    faults.push(`${field} is not a path`)
    return ''
  }
  const told = readObject(text)
  const known = ['name', 'listen', 'key', 'state', 'logs']
  for (const field of Object.keys(told)) if (!known.includes(field)) faults.push(`${field} is not known`)
  const settings = {
    name: nameOf(told['name'], faults),
    listen: addressOf(told['listen'], faults),
    key: at(told['key'], 'key'),
    state: at(told['state'], 'state'),
    logs: logsOf(told['logs'], faults),
  }
  if (faults.length > 0) throw new Failure('usage', `${path}: ${faults.join('; ')}. docs/witness.md has an example.`)
  return settings
}

const readObject = (text: string): Readonly<Record<string, unknown>> => {
  try {
    const told: unknown = parse(text)
    if (isObject(told)) return told
  } catch {
    // The same sentence.
  }
  throw new Failure('usage', 'What a witness is, is not written as YAML with name, listen, key, state and logs.')
}

const nameOf = (value: unknown, faults: string[]): string => {
  if (typeof value === 'string' && /^[a-z0-9.:[\]-]+(\/[A-Za-z0-9._~-]+)*$/.test(value)) return value
  faults.push('name is not a host and perhaps a path, like w.example.com/w1')
  return ''
}

const addressOf = (value: unknown, faults: string[]): WitnessSettings['listen'] => {
  const [, six, other, digits] = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]]+)):(\d{1,5})$/.exec(String(value)) ?? []
  const host = six ?? other
  if (host !== undefined && Number(digits) <= 65_535) return { host, port: Number(digits) }
  faults.push('listen is not host:port')
  return { host: '', port: 0 }
}

const logsOf = (value: unknown, faults: string[]): readonly VerifierKey[] => {
  if (!Array.isArray(value) || value.length === 0) {
    faults.push('logs is not a list of the keys of rolls')
    return []
  }
  return value.flatMap((text: unknown, i) => {
    try {
      const key = parseVerifierKey(String(text), sha256)
      if (key.type === 'ed25519') return [key]
      faults.push(`logs/${i} is the key of a witness`)
    } catch (error) {
      if (!isRollFault(error)) throw error
      faults.push(`logs/${i}: ${error.detail}`)
    }
    return []
  })
}

/** A key that is made anew has cosigned nothing, whatever became of another; its state begins before it does. */
const openKey = async ({ key: path, state }: WitnessSettings): Promise<KeyObject> => {
  const found = await readPrivateFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
  })
  if (!found) {
    const { privateKey } = generateKeyPairSync('ed25519')
    await createPrivateFile(state, '').catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
    await createPrivateFile(path, privateKey.export({ type: 'pkcs8', format: 'pem' }))
    return privateKey
  }
  const key = createPrivateKey(found)
  if (key.asymmetricKeyType !== 'ed25519') throw new Error(`${path} is not an Ed25519 key.`)
  return key
}

const verifierOf = (name: string, key: KeyObject): VerifierKey => {
  const publicKey = Buffer.from(createPublicKey(key).export({ format: 'jwk' }).x as string, 'base64url')
  return makeVerifierKey({ name, type: 'cosignature', publicKey }, sha256)
}
