/** `cfssl serve` from Debian's golang-cfssl, over TLS, with a P-256 CA; recording nothing, or in the same PostgreSQL. */

import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { freePort } from '../../test/helpers/port.ts'
import { countBy, type DatabaseUrls, type Place, withClient } from '../place.ts'
import { outputOf, start, untilReady } from '../process.ts'
import { call } from '../request.ts'
import { assertCertificate, makeAuthority, makeServerCertificate } from '../sample.ts'
import type { SampleRequest, Target } from './target.ts'

/** Undefined where cfssl is not installed. */
export const cfsslVersion = (): string | undefined => {
  if (outputOf('cfssl', 'version') === undefined) return undefined
  // Debian builds it without a version of its own.
  const debian = /^Version: (.*)$/m.exec(outputOf('dpkg-query', '-s', 'golang-cfssl') ?? '')?.[1]
  return debian ? `${debian} (Debian)` : 'unknown version'
}

export const openCfssl = async (place: Place, sample: SampleRequest, recording: boolean): Promise<Target> => {
  const name = recording ? 'cfssl-recording' : 'cfssl'
  const folder = await place.makeFolder(name)
  const database = recording ? await makeCertificateStore(place) : undefined
  const [ca, tls] = [makeAuthority(folder), makeServerCertificate(folder)]
  const port = await freePort()
  const [config, store] = [join(folder, 'config.json'), join(folder, 'db.json')]
  await writeFile(config, JSON.stringify(configuration))
  if (database) await writeFile(store, JSON.stringify({ driver: 'postgres', data_source: sourceOf(database) }))
  const program = await start({
    command: 'cfssl',
    args: [
      ...['serve', '-address', '127.0.0.1', '-port', String(port), '-config', config],
      ...['-ca', ca.cert, '-ca-key', ca.key, '-tls-cert', tls.cert, '-tls-key', tls.key],
      ...(database ? ['-db-config', store] : []),
    ],
    cwd: folder,
    log: join(place.folder, `${name}.log`),
  })
  const url = `https://127.0.0.1:${port}/api/v1/cfssl`
  const [trusted, issuer] = [await readFile(tls.cert, 'utf8'), await readFile(ca.cert, 'utf8')]
  const headers = { 'content-type': 'application/json' }
  await untilReady(
    program,
    async () => (await call({ url: `${url}/info`, ca: trusted, method: 'POST', headers, body: '{}' })).status === 200,
  )
  return {
    name,
    title: recording ? 'cfssl, recording in the same PostgreSQL' : 'cfssl, recording nothing',
    version: cfsslVersion() ?? '',
    url: `${url}/sign`,
    ca: trusted,
    headers,
    body: JSON.stringify({ certificate_request: sample.pem, profile: 'server' }),
    pid: program.pid,
    ...(database && {
      database,
      recorded: () => countBy(database.superuserUrl, 'select count(*) from certificates'),
    }),
    assertIssued: (status, text) => {
      const answer = JSON.parse(text)
      if (status !== 200 || answer.success !== true) throw new Error(`cfssl answers ${status}: ${text}`)
      assertCertificate(answer.result.certificate, sample.name, issuer)
    },
    close: () => program.stop(),
  }
}

/** cfssl's own schema (certdb/pg/migrations of its source), which its binary does not bring along. */
const makeCertificateStore = async (place: Place): Promise<DatabaseUrls> => {
  const database = await place.createDatabase('cfssl')
  await withClient(database.superuserUrl, (client) =>
    client.query(`
      create table certificates (
        serial_number bytea not null, authority_key_identifier bytea not null, ca_label bytea, status bytea not null,
        reason int, expiry timestamptz, revoked_at timestamptz, pem bytea not null,
        issued_at timestamptz, not_before timestamptz, metadata jsonb, sans jsonb, common_name text,
        primary key (serial_number, authority_key_identifier));
      create table ocsp_responses (
        serial_number bytea not null, authority_key_identifier bytea not null, body bytea not null, expiry timestamptz,
        primary key (serial_number, authority_key_identifier),
        foreign key (serial_number, authority_key_identifier) references certificates)`),
  )
  return database
}

const sourceOf = ({ name, socketFolder, superuserPassword }: DatabaseUrls): string =>
  `host=${socketFolder} port=5432 dbname=${name} user=postgres password=${superuserPassword} sslmode=disable`

const signing = { usages: ['digital signature', 'server auth'], expiry: '2160h' }
const configuration = { signing: { default: signing, profiles: { server: signing } } }
