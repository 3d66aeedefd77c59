/** `chancery credential`: which client certificates are whose. */
import { hash } from 'node:crypto'

import type { Command } from 'commander'

import { isProblem } from '../errors.ts'
import { Failure } from '../lib/failure.ts'
import { readGivenText } from '../lib/input-files.ts'
import { parseCertificate } from '../x509/certificate.ts'
import { parsePem } from '../x509/pem.ts'
import { nameText } from './event-text.ts'
import { addListByPrincipal, addRevokeById, openRest, type RestOptions, withRestOptions } from './rest.ts'

interface CreateOptions extends RestOptions {
  readonly label: string
  readonly certificate?: string
  readonly by?: string
  readonly fingerprint?: string
  readonly spiffeId?: string
}

interface Row extends Readonly<Record<string, unknown>> {
  readonly id: string
  readonly fingerprint: string | null
  readonly spiffeId: string | null
  readonly subject: string | null
  readonly issuer: string | null
}

export const addCredentialCommand = (program: Command): void => {
  const credential = program.command('credential').description('client certificates of principals')

  withRestOptions(
    credential.command('create <principal>').description('tie client certificates to a principal, one or all alike'),
  )
    .requiredOption('--label <text>', 'what it is for')
    .option('--certificate <file>', 'a certificate, PEM, to take the rest from')
    .option('--by <what>', 'with --certificate: fingerprint, spiffe or subject', 'fingerprint')
    .option('--fingerprint <hex>', 'SHA-256 of one certificate, as openssl x509 -fingerprint -sha256 prints it')
    .option('--spiffe-id <uri>', 'the only URI of each certificate')
    .action(async (principal: string, options: CreateOptions) => {
      const match = await matchOf(options)
      const { client, out } = await openRest(options)
      const answer = await client.call('POST', path, {
        body: { principal, label: options.label, ...match },
      })
      const made = answer.json<Row>()
      const since = answer.status === 201 ? 'now' : 'already'
      out.show(made, `${meantText(made)} is ${principal} ${since} (credential ${made.id}).`)
    })

  addListByPrincipal<Row>(credential, {
    about: 'list credentials',
    path,
    columns: ['id', 'principal', 'label', 'means', 'createdAt', 'revokedAt'],
    more: (row) => ({ means: meantText(row) }),
  })
  addRevokeById(
    credential,
    'untie client certificates',
    path,
    (id) => `Credential ${id} is revoked; it stops working within two seconds.`,
  )
}

const path = '/v1/credentials'

const meantText = ({ fingerprint, spiffeId, subject, issuer }: Row): string => {
  if (fingerprint !== null) return `the certificate ${fingerprint}`
  if (spiffeId !== null) return `whoever has a certificate for ${spiffeId}`
  return `whoever has a certificate of ${nameText(subject ?? '')} by ${nameText(issuer ?? '')}`
}

const matchOf = async ({ certificate, by, fingerprint, spiffeId }: CreateOptions): Promise<object> => {
  if ([certificate, fingerprint, spiffeId].filter((given) => given !== undefined).length !== 1)
    throw new Failure('usage', 'Name exactly one of --certificate, --fingerprint and --spiffe-id.')
  if (fingerprint !== undefined)
    return { fingerprint: fingerprint.replace(/^.*=/, '').replaceAll(':', '').toLowerCase() }
  if (spiffeId !== undefined) return { spiffeId }
  const take = Object.hasOwn(takers, by ?? '') ? takers[by as keyof typeof takers] : undefined
  if (!take) throw new Failure('usage', '--by is fingerprint, spiffe or subject.')
  return take(await readCertificate(certificate ?? ''))
}

const readCertificate = async (file: string): Promise<Buffer> => {
  const [block = ''] = (await readGivenText(file, 'The certificate ')).split(/(?<=-----END CERTIFICATE-----\r?\n)/)
  try {
    return parsePem(block, 'CERTIFICATE')
  } catch (error) {
    if (isProblem(error, 'csr.key_material'))
      throw new Failure('usage', `${file} holds a private key; nothing was sent. Give the certificate alone.`)
    if (!isProblem(error)) throw error
    throw new Failure('usage', `${file} is not a certificate in PEM (${error.detail}).`)
  }
}

/** What of a certificate says whose it is. */
const takers = {
  fingerprint: (der: Buffer) => ({ fingerprint: hash('sha256', der) }),
  spiffe: (der: Buffer) => {
    const uris = parseCertificate(der).facts.names.filter(({ kind }) => kind === 'uri')
    const [uri] = uris
    if (uris.length !== 1 || !uri?.value.startsWith('spiffe://'))
      throw new Failure('usage', 'The certificate does not have one URI that is a SPIFFE id.')
    return { spiffeId: uri.value }
  },
  subject: (der: Buffer) => {
    const { subjectDer, issuer } = parseCertificate(der).facts
    return { subject: subjectDer.toString('base64'), issuer: issuer.toString('base64') }
  },
} as const
