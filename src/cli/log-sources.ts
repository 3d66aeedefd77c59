/** Where recovery finds what entries do not hold: in the records, in what the service brings along, and in files. */
import { hash, X509Certificate } from 'node:crypto'

import { parse } from 'yaml'

import { own } from '../ca/own.ts'
import { replaceableBy } from '../ca/revocation/revoke.ts'
import type { Config } from '../config/config.ts'
import type { Database } from '../db/database.ts'
import { loadIssuers } from '../db/issuers.ts'
import type { RecoverySources } from '../db/log-effect.ts'
import { pooledRandom } from '../keys/random.ts'
import { canonicalJson } from '../lib/canonical-json.ts'
import { readGivenText } from '../lib/input-files.ts'
import { parseProfile } from '../policy/profile.ts'
import { loadSeedDocuments } from '../policy/seeds.ts'
import { codec } from '../server/codec.ts'
import { ownProfile } from '../server/own-certificates.ts'
import type { RollEntry } from '../tlog/forms.ts'
import { parseCertificate } from '../x509/certificate.ts'
import { parsePublicKey } from '../x509/keys.ts'
import { parsePemCertificates } from '../x509/pem.ts'
import { formatSubject } from '../x509/subject.ts'

export interface SourceFiles {
  /** Documents of profiles, YAML or JSON. */
  readonly profiles: readonly string[]
  /** Certificates of CAs, PEM. */
  readonly chains: readonly string[]
}

export interface Sources extends RecoverySources {
  /** Told of each entry before any is applied: some say what earlier ones lack. */
  learn(entry: RollEntry): void
}

export const openSources = async (db: Database, config: Config, files: SourceFiles): Promise<Sources> => {
  const profiles = await profilesOf(db, config, files.profiles)
  const authorities = await authorityCertificates(db, files.chains)
  const issuers = new Map<string, { certificate?: Buffer; keyUri?: string }>()
  const issuerOf = (name: string) => {
    const known = issuers.get(name) ?? {}
    issuers.set(name, known)
    return known
  }
  return {
    learn: (entry) => {
      // Of a key that was asked for the whole URI is there; where it was opened, without what is the instance's own.
      if (entry.type === 'issuer.requested') issuerOf(entry.issuer).keyUri = entry.key
      if (entry.type === 'key.opened') issuerOf(entry.issuer).keyUri ??= entry.key
      if (entry.type !== 'issuer.created') return
      const certificate = Buffer.from(entry.certificate, 'base64')
      issuerOf(entry.issuer).certificate = certificate
      authorities.set(hash('sha256', certificate), certificate)
    },
    readCertificate,
    profile: (sha256) => profiles.get(sha256),
    standIn: ({ profile: { name }, sha256 }, authority) => standIn(name, authority, sha256),
    issuer: (name) => {
      const { certificate, keyUri } = issuers.get(name) ?? {}
      const chain = certificate && chainOf(certificate, [...authorities.values()])
      if (!chain || keyUri === undefined) return undefined
      const keySha256 = parsePublicKey(parseCertificate(certificate).facts.spki).sha256.toString('hex')
      return { chain, keyUri, keySha256, publicUrl: config.publicUrl }
    },
    authorityCertificate: (sha256) => authorities.get(sha256),
    replaceable: replaceableBy,
    random: pooledRandom(),
  }
}

/** Throws where its entry could not be put together again from what is kept of it. */
const readCertificate: RecoverySources['readCertificate'] = (der) => {
  const { tbs, signature, facts } = parseCertificate(der)
  if (!codec.certificate(tbs, signature).equals(der))
    throw new Error('a certificate is not encoded as it would be here')
  const { names, notBefore, notAfter } = facts
  const keySha256 = parsePublicKey(facts.spki).sha256
  return { tbs, signature, subject: formatSubject(facts.subject), names, keySha256, notBefore, notAfter }
}

// Profiles ------------------------------------------------------------------------------------------------------------

type Profiles = Map<string, { readonly document: string; readonly authority: string }>

const profilesOf = async (db: Database, config: Config, files: readonly string[]): Promise<Profiles> => {
  const profiles: Profiles = new Map()
  const { rows } = await db.query<{ document: string }>({ text: 'select document from profiles' })
  const documents = [
    ...rows.map(({ document }): unknown => JSON.parse(document)),
    ...loadSeedDocuments(),
    ownProfile(config, own.authority),
    ...(await Promise.all(files.map(async (file): Promise<unknown> => parse(await readGivenText(file))))),
  ]
  for (const document of documents) {
    const profile = parseProfile(document, { version: 1 })
    profiles.set(profile.sha256, { document: canonicalJson(profile.document), authority: profile.authority })
  }
  return profiles
}

/** A name that nobody has (RFC 2606 2), and so no certificate that anybody would ask for. */
const standIn = (name: string, authority: string, lost: string) => {
  const profile = parseProfile(
    {
      name,
      description: `Stands in for a document that was lost with a database: SHA-256 ${lost}`,
      authority,
      validity: { default: '2s', max: '2s' },
      keys: [{ ed25519: true }],
      subject: { others: 'refuse' },
      names: { dns: { allow: ['lost.invalid'] }, require: ['dns'] },
      keyUsage: ['digitalSignature'],
      extendedKeyUsage: ['clientAuth'],
      revocation: ['crl', 'ocsp'],
    },
    { version: 1 },
  )
  return { document: canonicalJson(profile.document), sha256: profile.sha256 }
}

// Certificates of CAs ---------------------------------------------------------------------------------------------------

const authorityCertificates = async (db: Database, files: readonly string[]): Promise<Map<string, Buffer>> => {
  const known = (await loadIssuers(db)).flatMap(({ certificate, chain, otherChains = [] }) => [
    certificate,
    ...chain,
    ...otherChains.flat(),
  ])
  const brought = await Promise.all(files.map(async (file) => parsePemCertificates(await readGivenText(file), 100)))
  return new Map([...known, ...brought.flat()].map((der) => [hash('sha256', der), der]))
}

/** Those above a certificate, its root last, among those that are known. */
const chainOf = (certificate: Buffer, known: readonly Buffer[]): readonly Buffer[] | undefined => {
  const above: Buffer[] = []
  for (let at = new X509Certificate(certificate); !isSignedBy(at, at); ) {
    const next = known.find((der) => isSignedBy(at, new X509Certificate(der)))
    if (!next || above.length > maxChain) return undefined
    above.push(next)
    at = new X509Certificate(next)
  }
  return above
}

const isSignedBy = (one: X509Certificate, by: X509Certificate): boolean =>
  one.issuer === by.subject && one.verify(by.publicKey)

const maxChain = 10
