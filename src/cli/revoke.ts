/** `chancery revoke`: revoke a certificate, or release one from hold. */

import type { Command } from 'commander'

import { segment } from '../client/rest.ts'
import { Failure } from '../lib/failure.ts'
import { readGivenText } from '../lib/input-files.ts'
import { flagOf } from '../lib/output.ts'
import { openRest, type RestOptions, withRestOptions } from './rest.ts'

interface RevokeOptions extends RestOptions {
  readonly reason?: string
  readonly invalidityDate?: string
  readonly release?: boolean
  readonly key?: string
  readonly issuer?: string
}

interface RevokedAnswer {
  readonly serial: string
  readonly keySha256: string
  readonly revocation?: { readonly reason: string; readonly revokedAt: string }
  readonly alsoWithKey?: readonly string[]
}

export const addRevokeCommand = (program: Command): void => {
  withRestOptions(program.command('revoke <serial>').description('revoke a certificate, or release one from hold'))
    .option(
      '--reason <reason>',
      'unspecified (the default), keyCompromise, affiliationChanged, superseded, cessationOfOperation, certificateHold or privilegeWithdrawn',
    )
    .option('--invalidity-date <time>', 'since when its key may have been in wrong hands')
    .option('--key <file>', 'prove by its private key (PEM, read here and never sent) that it is yours; needs no token')
    .option(
      '--issuer <name>',
      'with --key: of the certificate, as its URLs name it; the service tells it where this is left out',
    )
    .option('--release', 'make one that is on hold valid again')
    .action(async (serial: string, options: RevokeOptions) => {
      if (options.release) assertOnlyReleases(options)
      if (options.key !== undefined) return revokeByKey(serial, options)
      const { client, out } = await openRest(options)
      const path = `/v1/certificates/${segment(serial)}/revocation`
      if (options.release) {
        const released = (await client.call('DELETE', path)).json<RevokedAnswer>()
        return out.show(released, `${released.serial} is released from hold: it is valid again.`)
      }
      const { reason = unspecified, invalidityDate } = options
      const body = { reason, ...(invalidityDate !== undefined && { invalidityDate }) }
      const revoked = (await client.call('POST', path, { body })).json<RevokedAnswer>()
      out.show(revoked, sentences(revoked).join('\n'))
    })
}

/** What says how to revoke must not be passed over by what makes valid, nor the other way round: a revocation is for good. */
const assertOnlyReleases = (options: RevokeOptions): void => {
  for (const name of ['key', 'reason', 'invalidityDate'] as const) {
    if (options[name] === undefined) continue
    throw new Failure(
      'usage',
      `--release makes a certificate valid again; leave out ${flagOf(name)}, or --release to revoke.`,
    )
  }
}

const unspecified = 'unspecified'

/** For whoever holds the key and nothing else: not even the certificate, which says whose it is. */
const revokeByKey = async (serial: string, options: RevokeOptions): Promise<void> => {
  const { key = '', issuer, reason = unspecified, invalidityDate } = options
  const pem = await readGivenText(key)
  const { client, out } = await openRest({ ...options, anonymous: true })
  const { signKeyProof } = await import('../keys/key-proof.ts')
  const headers = { 'content-type': 'application/jose' }
  const path = `/v1/certificates/${segment(serial)}/revocation/by-key`
  const revokeOf = async (named: string): Promise<RevokedAnswer> => {
    const said = { issuer: named, serial, reason, ...(invalidityDate !== undefined && { invalidityDate }) }
    const proof = { ...said, iat: Math.floor(Date.now() / 1000) }
    const body = await signKeyProof(proof, pem).catch((error: Error) => {
      throw new Failure('usage', `${key} is no private key that can sign: ${error.message}`)
    })
    return (await client.call('POST', path, { headers, body })).json<RevokedAnswer>()
  }
  const revoked = await revokeOf(issuer ?? usualIssuer).catch((error: unknown) => {
    const told = issuer === undefined ? issuerIn(error) : undefined
    if (told === undefined) throw error
    return revokeOf(told)
  })
  out.show(revoked, sentences(revoked).join('\n'))
}

/** Whose the certificate is, as the service tells whoever has signed by its key. */
const issuerIn = (error: unknown): string | undefined => {
  const { code, issuer } = ((error instanceof Failure && error.problem) || {}) as Readonly<Record<string, unknown>>
  return code === 'revocation.proof' && typeof issuer === 'string' && issuer !== usualIssuer ? issuer : undefined
}

/** Of a service that was started without a ceremony. */
const usualIssuer = 'default'

const sentences = ({ serial, keySha256, revocation, alsoWithKey }: RevokedAnswer): readonly string[] => [
  `${serial} is revoked as ${revocation?.reason} since ${revocation?.revokedAt}. Its CRL says so within a minute.`,
  ...(alsoWithKey === undefined
    ? []
    : [
        'No certificate will be issued for its key again.',
        ...(alsoWithKey.length === 0
          ? []
          : [
              `Other certificates with the same key (chancery certificate search --key ${keySha256}):`,
              ...alsoWithKey.map((other) => `  ${other}`),
              ...(alsoWithKey.length < mostTold ? [] : [`These are the newest ${mostTold}, and there may be more.`]),
              `What of them is valid, an operator revokes: chancery revoke-many --key ${keySha256} --reason keyCompromise`,
            ]),
      ]),
]

/** As the server bounds them. */
const mostTold = 100
