/** `chancery witness`: a small process of somebody else's, that watches rolls grow. It shares nothing with the service. */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { dirname, resolve } from 'node:path'

import { verifyEd25519 } from '../keys/note-signatures.ts'
import { createPrivateFile, readPrivateFile } from '../keys/private-file.ts'
import { Failure } from '../lib/failure.ts'
import { closed, type Static, Type } from '../lib/schema.ts'
import { sha256 } from '../lib/sha256.ts'
import type { Log } from '../log.ts'
import type { ShapeFault } from '../policy/shape.ts'
import { codec } from '../server/codec.ts'
import { isRollFault } from '../tlog/fault.ts'
import { encodeVerifierKey, makeVerifierKey, parseVerifierKey, type VerifierKey } from '../tlog/note.ts'
import { openWitnessServer, type WitnessServer } from '../witness/server.ts'
import { openWitnessState } from '../witness/state.ts'
import { openWitness } from '../witness/witness.ts'
import { assertNoFault, readSettingsFile } from './settings-file.ts'
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

const Path = Type.String({ minLength: 1, description: 'a path' })
const WitnessDocument = Type.Object(
  {
    name: Type.String({
      pattern: '^[a-z0-9.:[\\]-]+(/[A-Za-z0-9._~-]+)*$',
      description: 'a host and perhaps a path, like w.example.com/w1',
    }),
    listen: Type.String({ pattern: '^(\\[[0-9a-fA-F:.]+\\]|[^\\s:[\\]]+):[0-9]{1,5}$', description: 'host:port' }),
    key: Path,
    state: Path,
    logs: Type.Array(Type.String(), { minItems: 1, description: 'a list of the keys of logs' }),
  },
  { ...closed, description: 'a map of settings' },
)

/** Throws a usage failure with every fault and its place. */
export const readWitnessSettings = async (path: string): Promise<WitnessSettings> => {
  const file = { path, whose: 'a witness', page: 'docs/witness.md' }
  const document = await readSettingsFile<Static<typeof WitnessDocument>>(file, WitnessDocument)
  const { name, listen, key, state } = document
  const faults: ShapeFault[] = []
  const logs = document.logs.flatMap((text, i) => {
    const report = (reason: string) => faults.push({ field: `/logs/${i}`, value: text, reason })
    try {
      const verifier = parseVerifierKey(text, sha256)
      if (verifier.type === 'ed25519') return [verifier]
      report('is the key of a witness')
    } catch (error) {
      if (!isRollFault(error)) throw error
      report(error.detail)
    }
    return []
  })
  assertNoFault(file, faults)
  const at = listen.lastIndexOf(':')
  return {
    name,
    listen: { host: listen.slice(0, at).replace(/^\[(.*)\]$/, '$1'), port: Number(listen.slice(at + 1)) },
    key: resolve(dirname(path), key),
    state: resolve(dirname(path), state),
    logs,
  }
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
