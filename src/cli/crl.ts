/** `chancery crl`: look into a list of what is revoked, and bring one that an offline root has signed. */

import type { Command } from 'commander'

import { octetsOf, unfetched } from '../client/fetch-fault.ts'
import { kindOfStatus } from '../client/rejected.ts'
import { type Client, segment } from '../client/rest.ts'
import { Problem } from '../errors.ts'
import { Failure } from '../lib/failure.ts'
import { readGiven } from '../lib/input-files.ts'
import { openOutput, visible } from '../lib/output.ts'
import { parseCertificate } from '../x509/certificate.ts'
import { type Crl, parseCrl } from '../x509/crl.ts'
import { encodePem, parsePem } from '../x509/pem.ts'
import { formatSubject, parseSubject } from '../x509/subject.ts'
import { openRest, type RestOptions, withRestOptions } from './rest.ts'

interface InspectOptions {
  readonly json?: boolean
  readonly entries?: boolean
}

export const addCrlCommand = (program: Command): void => {
  const crl = program.command('crl').description('lists of what is revoked')

  crl
    .command('inspect <file>')
    .description('say what is in a list, from a file (DER or PEM) or an http URL; its signature is not looked at')
    .option('--entries', 'every serial on it')
    .option('--json', 'print JSON for machines')
    .action(async (place: string, { json = false, entries = false }: InspectOptions) => {
      const view = viewOf(await readList(place), entries)
      openOutput(json).show(view, textOf(view))
    })

  withRestOptions(
    crl
      .command('import <issuer> <file>')
      .description(
        'bring the list of a CA above an issuer (DER or PEM), as a ceremony has made it; it is served at once',
      ),
  ).action(async (issuer: string, path: string, options: RestOptions) => {
    const { client, out } = await openRest(options)
    const der = await readOctets(path)
    const body = { crl: encodePem('X509 CRL', der) }
    const answer = await client.call('POST', `/v1/issuers/${segment(issuer)}/crl`, { body })
    const imported = answer.json<{ number: string; nextUpdate: string }>()
    const list = parseCrl(der)
    // It is imported, whether or not there is anything to tell of it.
    const below = await issuersBelow(client, list).catch(() => [])
    const [silent] = below.some(({ facts }) => facts.crlUrls.length > 0) ? [] : below
    const lines = [
      `List ${imported.number} is ${silent ? 'kept' : 'served'}; it may be used until ${imported.nextUpdate}.`,
      ...(silent ? [`Whoever checks ${silent.name} is not led to it: its certificate says no URL.`] : []),
      ...below.filter(({ facts }) => list.revoked.some(({ serial }) => serial.equals(facts.serial))).map(revokedText),
    ]
    out.show(imported, lines.join('\n'))
  })
}

interface IssuerState {
  readonly name: string
  readonly state: string
  /** PEM. */
  readonly certificate: string
}

/** Those in use whose own certificate is signed by whoever signed the list. */
const issuersBelow = async (client: Client, { issuer }: Crl) => {
  const { items } = (await client.call('GET', '/v1/issuers')).json<{ items: readonly IssuerState[] }>()
  return items
    .filter(({ state }) => state !== 'retired')
    .map((item) => ({ ...item, facts: parseCertificate(parsePem(Buffer.from(item.certificate), 'CERTIFICATE')).facts }))
    .filter(({ facts }) => facts.issuer.equals(issuer))
}

const revokedText = ({ name, state }: IssuerState): string =>
  state === 'crl-only'
    ? `It revokes the issuer ${name}, which signs no certificates any more.`
    : `It revokes the issuer ${name}, which is ${state}: chancery issuer halt ${name} --reason TEXT`

const viewOf = (crl: Crl, withEntries: boolean) => ({
  issuer: formatSubject(parseSubject(crl.issuer)),
  number: crl.number.toString(),
  thisUpdate: crl.thisUpdate.toISOString(),
  nextUpdate: crl.nextUpdate.toISOString(),
  signedBy: crl.signatureAlgorithm.id,
  authorityKeyIdentifier: crl.authorityKeyIdentifier.toString('hex'),
  distributionPoint: crl.distributionPoint?.url ?? null,
  onlyContains: crl.distributionPoint?.only ?? null,
  revoked: crl.revoked.length,
  ...(withEntries && {
    entries: crl.revoked.map(({ serial, revokedAt, reason, invalidSince }) => ({
      serial: serial.toString('hex'),
      revokedAt: revokedAt.toISOString(),
      reason: reason ?? null,
      invalidityDate: invalidSince?.toISOString() ?? null,
    })),
  }),
})

const textOf = ({ entries, ...facts }: ReturnType<typeof viewOf>): string =>
  [
    // Where it is to be found it says in whatever letters, and nobody has looked at who signed it.
    ...Object.entries(facts).map(([name, value]) => name.padEnd(24) + visible(String(value ?? '-'))),
    ...(entries ?? []).map(
      ({ serial, revokedAt, reason, invalidityDate }) =>
        `  ${serial}  ${revokedAt}  ${reason ?? '-'}${invalidityDate ? `, invalid since ${invalidityDate}` : ''}`,
    ),
  ].join('\n')

const readList = async (place: string): Promise<Crl> => {
  const octets = /^https?:\/\//.test(place) ? await fetchOctets(place) : await readOctets(place)
  return telling(place, () => parseCrl(octets, 'crl.invalid'))
}

const fetchOctets = async (url: string): Promise<Buffer> => {
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(30_000) })
    if (answer.ok) return await octetsOf(answer)
    throw new Failure(kindOfStatus(answer.status), `${url} cannot be fetched: the answer is ${answer.status}.`)
  } catch (error) {
    throw error instanceof Failure ? error : unfetched(url, error as Error)
  }
}

/** DER, of what may be PEM. */
const readOctets = async (path: string): Promise<Buffer> => {
  const octets = await readGiven(path)
  return octets[0] === 0x30 ? octets : telling(path, () => parsePem(octets, 'X509 CRL'))
}

const telling = <T>(place: string, read: () => T): T => {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof Problem)) throw error
    // It is read here, and was sent to nobody.
    const why = error.code === 'csr.key_material' ? 'it holds a private key' : error.detail
    throw new Failure('refused', `${place} is no list that can be read: ${why}.`)
  }
}
