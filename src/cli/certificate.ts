/** `chancery certificate`: what was issued, its proof, and when to renew it. */
import { writeFile } from 'node:fs/promises'

import type { Command } from 'commander'

import { segment } from '../client/rest.ts'
import { Failure } from '../lib/failure.ts'
import { visible } from '../lib/output.ts'
import { exactDurationText } from '../lib/progress.ts'
import type { Origin } from '../policy/origin.ts'
import { addSearchCommand, withProfileText } from './audit.ts'
import { originLine } from './event-text.ts'
import { assertReplaceable, type Replacement } from './output-file.ts'
import { openRest, type RestOptions, withRestOptions } from './rest.ts'

export const addCertificateCommand = (program: Command): void => {
  const certificate = program.command('certificate').description('certificates that were issued')

  addSearchCommand(certificate, 'search', 'certificates')
  addProofCommand(certificate)
  addRenewalInfoCommand(certificate)
  withRestOptions(certificate.command('show <serial>').description('show one certificate'))
    .option('--pem', 'the certificate and its chain, leaf first')
    .action(async (serial: string, options: RestOptions & { pem?: boolean }) => {
      const { client, out } = await openRest(options)
      const path = `/v1/certificates/${segment(serial)}`
      if (options.pem)
        return out.show(
          undefined,
          (await client.call('GET', path, { accept: 'application/pem-certificate-chain' })).text,
        )
      const record = (await client.call('GET', path)).json<Record<string, unknown>>()
      const { certificate: pem, chain: _chain, ...facts } = withProfileText(record)
      out.show(
        record,
        `${Object.entries(facts)
          .map(([name, value]) => `${name.padEnd(12)}${textOf(value)}`)
          .join('\n')}\n${pem}`,
      )
    })
}

const addProofCommand = (certificate: Command): void => {
  withRestOptions(
    certificate
      .command('proof <serial>')
      .description('fetch the proof that a certificate is on the roll; "chancery roll prove" verifies it'),
  )
    .option('--out <file>', 'write it there, in place of another proof')
    .action(async (serial: string, options: RestOptions & { readonly out?: string }) => {
      const { client } = await openRest(options)
      const out = options.out === '-' ? undefined : options.out
      if (out !== undefined) await assertReplaceable(out, proofs)
      const { text } = await client.call('GET', `/v1/certificates/${segment(serial)}/proof`)
      if (out === undefined) return void process.stdout.write(`${text}\n`)
      await writeFile(out, `${text}\n`).catch((error: Error) => {
        throw new Failure('usage', `The proof cannot be written: ${error.message}.`)
      })
    })
}

/** A bare one, or the answer that this command writes; one with a certificate in it is more than a proof. */
const proofs: Replacement = {
  isOne: ({ first }) => isProof(first) || isAnswer(first),
  what: 'proof',
}

const isProof = (text: unknown): boolean => typeof text === 'string' && text.startsWith('c2sp.org/tlog-proof@')

const isAnswer = (text: string): boolean => {
  try {
    const { proof, certificate } = JSON.parse(text)
    return isProof(proof) && certificate === undefined
  } catch {
    return false
  }
}

interface RenewalInfo {
  readonly suggestedWindow: { readonly start: string; readonly end: string }
  readonly reason: string
}

const addRenewalInfoCommand = (certificate: Command): void => {
  withRestOptions(
    certificate.command('renewal-info <serial>').description('when a certificate is best renewed, and why then'),
  ).action(async (serial: string, options: RestOptions) => {
    const { client, out } = await openRest(options)
    const answer = await client.call('GET', `/v1/certificates/${segment(serial)}/renewal-info`)
    const info = answer.json<RenewalInfo>()
    const { start, end } = info.suggestedWindow
    const when = Date.parse(end) <= Date.now() ? `now, since ${end}` : `from ${start} until ${end}`
    const retryAfter = Number(answer.headers['retry-after'])
    const lines = [
      ['renew', when],
      ['why', info.reason],
      ['ask again', `in ${exactDurationText(retryAfter)}`],
    ]
    out.show(
      { ...info, retryAfter },
      lines.map(([label = '', value = '']) => label.padEnd(12) + visible(value)).join('\n'),
    )
  })
}

const textOf = (value: unknown): string => {
  if (isRevocation(value))
    return visible(`${value.reason} since ${value.revokedAt} by ${value.by ?? 'the holder of its key'}`)
  if (isOrigin(value)) return visible(originLine(value))
  if (!Array.isArray(value)) return visible(String(value))
  return visible(value.map(({ kind, value: name }: { kind: string; value: string }) => `${kind}:${name}`).join(' '))
}

/** The only other object that a certificate has in a member. */
const isOrigin = (value: unknown): value is Origin =>
  typeof value === 'object' && value !== null && ('user' in value || 'serviceAccount' in value)

interface RevocationText {
  readonly reason: string
  readonly revokedAt: string
  readonly by: string | null
}

const isRevocation = (value: unknown): value is RevocationText =>
  typeof value === 'object' && value !== null && 'revokedAt' in value
