/** Signatures a second by provider and algorithm: through the signer process, and in the process that asks. */
import { join } from 'node:path'

import { type Keyring, openGuarded, openKeyring } from '../../src/keys/keyring.ts'
import { loadPassphrase, makePassphrase } from '../../src/keys/passphrase.ts'
import { openTestSigners } from '../../test/hsm/signers.ts'
import type { Place } from '../place.ts'
import { rateOf } from './drive.ts'
import type { Tokens } from './tokens.ts'

export interface SignatureRow {
  readonly provider: 'file' | 'SoftHSM'
  readonly algorithm: string
  /** Signatures a second. */
  readonly signer: number
  readonly inline: number
}

export interface SignaturesPlan {
  readonly place: Place
  readonly tokens: Tokens
  readonly seconds: number
  readonly tell: (line: string) => void
}

export const measureSignatures = async ({
  place,
  tokens,
  seconds,
  tell,
}: SignaturesPlan): Promise<readonly SignatureRow[]> => {
  const closing: (() => unknown)[] = []
  const { keys: signers } = await openTestSigners({ teardown: (close) => void closing.push(close) }, tokens.quick)
  const inline = await openInline(place, tokens)
  closing.push(inline.close)
  const rows: SignatureRow[] = []
  try {
    for (const { provider, uriOf, kinds } of providers)
      for (const kind of kinds) {
        const drive = { outstanding, seconds }
        // Two keys: in a file or a token, one is never made twice.
        const signer = await signers.create(uriOf(`signer-${kind}`), kind)
        const own = await inline.create(uriOf(`inline-${kind}`), kind)
        const row = {
          provider,
          algorithm: signer.algorithm.id,
          signer: await rateOf(signer, drive),
          inline: await rateOf(own, drive),
        }
        tell(
          `${provider}, ${row.algorithm}: ${Math.round(row.signer)}/s by the signer, ${Math.round(row.inline)}/s inline`,
        )
        rows.push(row)
      }
  } finally {
    for (const close of closing) await close()
  }
  return rows
}

/** As `server/keys.ts` does it with CHANCERY_SIGNER=inline. */
const openInline = async (place: Place, { quick }: Tokens): Promise<Keyring> => {
  // The module reads it in this process.
  Object.assign(process.env, quick.env)
  const dataDir = await place.makeFolder('inline-keys')
  await makePassphrase(dataDir)
  const ring = openKeyring({
    dataDir,
    passphrase: () => loadPassphrase({ mode: 'development', dataDir, keys: {} }),
    pkcs11: { modules: [quick.module], pin: async () => '1234', sessions: 8, queue: 512, deadlineMs: 2_000 },
    lost: (reason) => {
      throw new Error(reason)
    },
  })
  return openGuarded(ring)
}

interface Measured {
  readonly provider: SignatureRow['provider']
  readonly uriOf: (name: string) => string
  readonly kinds: readonly Parameters<Keyring['create']>[1][]
}

const classic = ['ec-p256', 'ec-p384', 'ec-p521', 'rsa', 'ed25519'] as const
const providers: readonly Measured[] = [
  {
    provider: 'file',
    uriOf: (name) => `file:${join('keys', `${name}.pem`)}`,
    kinds: [...classic, 'ml-dsa-44', 'ml-dsa-65', 'ml-dsa-87'],
  },
  // SoftHSM has no ML-DSA.
  { provider: 'SoftHSM', uriOf: (name) => `pkcs11:token=ca;object=${name}`, kinds: classic },
]
/** As many as clients of the issuance rows. */
const outstanding = 32
