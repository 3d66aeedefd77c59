/**
 * Decides, from the records and from what clients were answered, whether anything was lost, doubled or made up. It
 * shares no code with `src`: plain SQL, Node's own X.509 reader, and its own idea of canonical JSON.
 */
import { createHash, X509Certificate } from 'node:crypto'

import pg from 'pg'

/** A certificate that a client was handed, under the key it asked with. */
export interface Answered {
  readonly key: string
  readonly serial: string
  readonly index: number
  readonly certificate: string
  /** As it came with it (`chain.ts` checks it). */
  readonly proof?: string
}

/** Every broken invariant as a sentence; empty when the records hold. */
export const faultsInRecords = async (url: string, answered: readonly Answered[]): Promise<readonly string[]> => {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    // One look: a service under way writes between two.
    await client.query('begin isolation level repeatable read read only')
    const faults: string[] = []
    for (const check of [intents, requests, renewals, roll, entries, certificates, revocations, lists])
      faults.push(...(await check(client)))
    faults.push(...(await answers(client, answered)))
    return faults
  } finally {
    await client.end()
  }
}

// biome-ignore lint/suspicious/noExplicitAny: rows of many shapes; a wrong column is a fault that the checker reports.
type Row = Record<string, any>

const rowsOf = async (client: pg.Client, text: string, values: unknown[] = []): Promise<Row[]> =>
  (await client.query(text, values)).rows

const intents = async (client: pg.Client): Promise<string[]> => {
  const open = await rowsOf(
    client,
    `select encode(serial, 'hex') as serial from intents where serial not in (select serial from outcomes)`,
  )
  const twice = await rowsOf(client, 'select serial from outcomes group by serial having count(*) > 1')
  const orphans = await rowsOf(client, 'select serial from outcomes where serial not in (select serial from intents)')
  return [
    ...open.map(({ serial }) => `the intent ${serial} has no outcome`),
    ...twice.map(() => 'an intent has two outcomes'),
    ...orphans.map(() => 'an outcome has no intent'),
  ]
}

const requests = async (client: pg.Client): Promise<string[]> => {
  const twice = await rowsOf(
    client,
    `select i.idempotency_key as key, count(*) from intents i join outcomes o on o.serial = i.serial
     where o.kind = 'certificate' and i.idempotency_key is not null
     group by i.principal, i.idempotency_key having count(*) > 1`,
  )
  return twice.map(({ key }) => `the idempotency key ${key} has more than one certificate`)
}

const roll = async (client: pg.Client): Promise<string[]> => {
  const [head] = await rowsOf(client, 'select size::int from roll')
  const [found] = await rowsOf(
    client,
    'select count(*)::int as n, coalesce(min(index), 0)::int as low, coalesce(max(index), -1)::int as high from entries',
  )
  const back = await rowsOf(
    client,
    'select index from (select index, time, lag(time) over (order by index) as before from entries) e where time < before',
  )
  const faults = back.map(({ index }) => `entry ${index} is older than the one before it`)
  if (found?.n !== head?.size || found?.low !== 0 || found?.high !== head?.size - 1) {
    faults.push(`the roll has size ${head?.size}, but entries ${found?.low} to ${found?.high}, ${found?.n} in all`)
  }
  return faults
}

/** A renewal takes the place of a certificate that there is, for the same principal, by the same profile, in one row. */
const renewals = async (client: pg.Client): Promise<string[]> => {
  const rows = await rowsOf(
    client,
    `select encode(i.serial, 'hex') as serial from intents i
       left join intents b on b.serial = i.replaces left join outcomes o on o.serial = i.replaces
     where i.replaces is not null and (o.kind is distinct from 'certificate' or b.principal <> i.principal
       or b.profile <> i.profile or i.first <> coalesce(b.first, b.serial))`,
  )
  return rows.map(({ serial }) => `${serial} renews what it cannot renew`)
}

/** Every leaf hash again, from the bytes; every outcome has its entry and every entry its outcome. */
const entries = async (client: pg.Client): Promise<string[]> => {
  const rows = await rowsOf(
    client,
    `select e.index::int, e.type, e.time, encode(e.leaf_hash, 'hex') as leaf, e.body, encode(e.serial, 'hex') as serial, i.tbs, o.signature,
       encode(i.plan, 'hex') as plan, i.approval, i.issuer, i.profile, i.profile_version, i.principal, encode(i.digest, 'hex') as digest,
       encode(i.replaces, 'hex') as replaces, i.origin, o.kind, o.entry::int as outcome_entry
     from entries e left join intents i on i.serial = e.serial left join outcomes o on o.serial = e.serial
     order by e.index`,
  )
  const faults: string[] = []
  for (const row of rows) {
    if (!row.body && !(row.tbs && row.signature)) {
      faults.push(`entry ${row.index} (${row.type}) is of a certificate that is not in the records`)
      continue
    }
    const text = row.body ?? issuedText(row)
    const leaf = createHash('sha256')
      .update(Buffer.concat([Buffer.from([0]), Buffer.from(text)]))
      .digest('hex')
    if (leaf !== row.leaf) faults.push(`entry ${row.index} (${row.type}) does not hash to its leaf`)
    const ends = { 'certificate.issued': 'certificate', 'issuance.abandoned': 'abandoned' }[row.type as string]
    if (ends !== undefined && (row.kind !== ends || row.outcome_entry !== row.index))
      faults.push(`entry ${row.index} is not that of its outcome`)
  }
  const lost = await rowsOf(
    client,
    `select serial from outcomes where kind <> 'unsigned' and (entry is null or entry not in (select index from entries))`,
  )
  return [...faults, ...lost.map(() => 'an outcome has no entry on the roll')]
}

const issuedText = (row: Row): string =>
  `{"approval":${JSON.stringify(row.approval)},"certificate":${JSON.stringify(wrap(row.tbs, row.signature).toString('base64'))},"issuer":${JSON.stringify(row.issuer)},"origin":${row.origin ?? 'null'},` +
  `"plan":"${row.plan}","principal":${JSON.stringify(row.principal)},"profile":{"name":${JSON.stringify(row.profile)},"version":${row.profile_version}},` +
  `"replaces":${JSON.stringify(row.replaces)},"request":"${row.digest}","serial":"${row.serial}","time":"${row.time.toISOString()}","type":"certificate.issued","v":1}`

/** SEQUENCE { tbs, ecdsa-with-SHA256, BIT STRING }: the issuers of the tests are all P-256. */
const wrap = (tbs: Buffer, signature: Buffer): Buffer => {
  const algorithm = Buffer.from('300a06082a8648ce3d040302', 'hex')
  const bits = tlv(3, Buffer.concat([Buffer.from([0]), signature]))
  return tlv(0x30, Buffer.concat([tbs, algorithm, bits]))
}

const tlv = (tag: number, content: Buffer): Buffer => {
  const n = content.length
  const header = n < 128 ? [tag, n] : n < 256 ? [tag, 0x81, n] : [tag, 0x82, n >> 8, n & 255]
  return Buffer.concat([Buffer.from(header), content])
}

/** Every recorded certificate parses, verifies under its issuer, and no serial occurs twice. */
const certificates = async (client: pg.Client): Promise<string[]> => {
  const issuers = new Map(
    (await rowsOf(client, 'select name, certificate from issuers')).map((row) => [
      row.name,
      new X509Certificate(row.certificate).publicKey,
    ]),
  )
  const rows = await rowsOf(
    client,
    `select encode(i.serial, 'hex') as serial, i.tbs, o.signature, i.issuer, exists (select from certificate_names n where n.serial = o.serial) as searchable from outcomes o join intents i on i.serial = o.serial where o.kind = 'certificate'`,
  )
  const seen = new Set<string>()
  const faults: string[] = []
  for (const row of rows) {
    const certificate = new X509Certificate(wrap(row.tbs, row.signature))
    const serial = certificate.serialNumber.toLowerCase().padStart(32, '0')
    const key = issuers.get(row.issuer)
    if (serial !== row.serial) faults.push(`the certificate of intent ${row.serial} has serial ${serial}`)
    if (seen.has(serial)) faults.push(`the serial ${serial} occurs twice`)
    seen.add(serial)
    if (key === undefined || !certificate.verify(key)) faults.push(`the certificate ${serial} does not verify`)
    if (row.searchable !== (certificate.subjectAltName !== undefined))
      faults.push(`the certificate ${serial} can't be searched`)
  }
  return faults
}

/** Whatever a client was handed is in the records, octet for octet, at the place it was told. */
const answers = async (client: pg.Client, answered: readonly Answered[]): Promise<string[]> => {
  const rows = await rowsOf(
    client,
    `select encode(o.serial, 'hex') as serial, i.tbs, o.signature, o.entry::int as entry from outcomes o join intents i on i.serial = o.serial where o.kind = 'certificate'`,
  )
  const recorded = new Map(rows.map((row) => [row.serial as string, row]))
  const byKey = new Map<string, string>()
  const faults: string[] = []
  for (const { key, serial, index, certificate } of answered) {
    const row = recorded.get(serial)
    if (!row) faults.push(`the answered certificate ${serial} is not in the records`)
    else if (!wrap(row.tbs, row.signature).equals(new X509Certificate(certificate).raw))
      faults.push(`the answered certificate ${serial} is not the recorded one`)
    else if (row.entry !== index) faults.push(`the answered certificate ${serial} is at ${row.entry}, not at ${index}`)
    const first = byKey.get(key)
    if (first !== undefined && first !== serial)
      faults.push(`the key ${key} was answered with ${first} and with ${serial}`)
    byKey.set(key, serial)
  }
  return faults
}

/** Each change has its event, and none is of what was not issued or abandoned. */
const revocations = async (client: pg.Client): Promise<string[]> => {
  const types: Readonly<Record<string, string>> = {
    revoked: 'certificate.revoked',
    released: 'certificate.released',
    abandoned: 'issuance.abandoned',
  }
  const rows = await rowsOf(
    client,
    `select r.entry, r.change, encode(r.serial, 'hex') as serial, e.type, encode(e.serial, 'hex') as told, o.kind
     from revocations r left join entries e on e.index = r.entry left join outcomes o on o.serial = r.serial`,
  )
  const [{ n = 0 } = {}] = await rowsOf(
    client,
    `select count(*)::int as n from entries where type in ('certificate.revoked', 'certificate.released', 'issuance.abandoned')`,
  )
  return [
    ...rows
      .filter(({ change, serial, type, told }) => types[change] !== type || serial !== told)
      .map(({ entry }) => `the change of entry ${entry} is not what its event says`),
    ...rows
      .filter(({ change, kind }) => kind !== (change === 'abandoned' ? 'abandoned' : 'certificate'))
      .map(({ serial }) => `${serial} is revoked, and was never issued`),
    ...(n === rows.length ? [] : [`there are ${n} events of revocations, and ${rows.length} revocations`]),
  ]
}

/** Numbers without a gap; what is served is what was recorded, octet by octet. */
const lists = async (client: pg.Client): Promise<string[]> => {
  const gaps = await rowsOf(
    client,
    `select issuer, shard from crls group by issuer, shard having max(number) <> count(*) or min(number) <> 1`,
  )
  const served = await rowsOf(
    client,
    `select f.issuer, f.shard, f.number, f.der, encode(c.tbs_sha256, 'hex') as recorded
     from crl_files f left join crls c on c.issuer = f.issuer and c.shard = f.shard and c.number = f.number`,
  )
  return [
    ...gaps.map(({ issuer, shard }) => `the numbers of the lists of ${issuer}/${shard} have a gap`),
    ...served
      .filter(({ der, recorded }) => createHash('sha256').update(firstIn(der)).digest('hex') !== recorded)
      .map(({ issuer, shard, number }) => `list ${number} of ${issuer}/${shard} is not the one that was recorded`),
  ]
}

/** The first element of a SEQUENCE, with its header. */
const firstIn = (der: Buffer): Buffer => {
  const contents = der.subarray(headerOf(der).octets)
  const { octets, length } = headerOf(contents)
  return contents.subarray(0, octets + length)
}

const headerOf = (der: Buffer): { readonly octets: number; readonly length: number } => {
  const first = der[1] ?? 0
  if (first < 0x80) return { octets: 2, length: first }
  return { octets: 2 + (first & 0x7f), length: der.readUIntBE(2, first & 0x7f) }
}
