/** The request that every target gets, and the check of what comes back. */
import { X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import { outputOf } from './process.ts'
import type { SampleRequest } from './targets/target.ts'

export const sampleName = 'bench.example.com'

/** Made by openssl, as clients do it. */
export const makeSample = async (folder: string, { subject = '/', name = sampleName } = {}): Promise<SampleRequest> => {
  const file = join(folder, `${name}.csr`)
  const made = outputOf(
    'openssl',
    ...['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', `${file}.key`],
    ...['-subj', subject, '-addext', `subjectAltName=DNS:${name}`, '-out', file],
  )
  if (made === undefined) throw new Error('openssl is needed to make a certificate request')
  return { pem: await readFile(file, 'utf8'), name }
}

/** Throws unless the PEM is a certificate for the name with the issuer's signature. */
export const assertCertificate = (pem: string, name: string, issuer: string): void => {
  const certificate = new X509Certificate(pem)
  if (certificate.subjectAltName !== `DNS:${name}`) throw new Error(`a certificate for ${certificate.subjectAltName}`)
  if (!certificate.verify(new X509Certificate(issuer).publicKey)) throw new Error('a certificate of another issuer')
}

/** A P-256 CA with a certificate of its own, as a peer's set-up guide would make it; and one for its HTTPS. */
export const makeAuthority = (folder: string): { readonly cert: string; readonly key: string } => {
  const [cert, key] = [join(folder, 'ca.pem'), join(folder, 'ca.key')]
  const args = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '3650']
  const ca = ['-subj', '/CN=Bench CA', '-addext', 'keyUsage=critical,keyCertSign,cRLSign']
  if (outputOf('openssl', ...args, ...ca, '-keyout', key, '-out', cert) === undefined)
    throw new Error('openssl made no CA')
  return { cert, key }
}

export const makeServerCertificate = (folder: string): { readonly cert: string; readonly key: string } => {
  const [cert, key] = [join(folder, 'tls.pem'), join(folder, 'tls.key')]
  const args = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30']
  const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1']
  if (outputOf('openssl', ...args, ...names, '-keyout', key, '-out', cert) === undefined)
    throw new Error('openssl made no server certificate')
  return { cert, key }
}
