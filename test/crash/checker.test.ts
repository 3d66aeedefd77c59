/** The checker of the crash tests finds what it is there for: each fault, put into records that hold, is told as itself. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { openTestDatabase } from '../helpers/database.ts'
import { openTestService } from '../helpers/service.ts'
import { slowUnless } from '../helpers/slow.ts'
import { tamper } from '../helpers/tamper.ts'
import { dns, pem, request, san } from '../x509/build.ts'
import { type Answered, faultsInRecords } from './checker.ts'

type Pair = readonly [Answered, Answered]
interface Fault {
  readonly name: string
  /** Of what is revoked, published. */
  readonly hasLists?: boolean
  /** Done to the records of two certificates; none where only what clients say is wrong. */
  readonly statements?: (pair: Pair) => Parameters<typeof tamper>[1][]
  readonly answered?: (pair: Pair) => readonly Answered[]
  /** How what is told begins. */
  readonly told: (pair: Pair) => string
}

const octets = (serial: string): string => `'\\x${serial}'::bytea`
const other = (column: string, table: string, { serial }: Answered): string =>
  `(select ${column} from ${table} where serial = ${octets(serial)})`
const revoked = (serial: string, index: number): string =>
  `insert into revocations (entry, serial, change, revoked_at, issuer, shard, not_after, certificate)
   values (${index}, ${octets(serial)}, 'revoked', now(), 'default', 0, now(), ${index})`

const faults: readonly Fault[] = [
  {
    name: 'an intent without an outcome',
    statements: ([{ serial }]) => [`delete from outcomes where serial = ${octets(serial)}`],
    told: ([{ serial }]) => `the intent ${serial} has no outcome`,
  },
  {
    name: 'an intent with two outcomes',
    statements: ([{ serial }]) => [
      'alter table outcomes drop constraint outcomes_pkey cascade',
      'alter table outcomes drop constraint outcomes_entry_key cascade',
      'drop index outcomes_one_certificate',
      `insert into outcomes select * from outcomes where serial = ${octets(serial)}`,
    ],
    told: () => 'an intent has two outcomes',
  },
  {
    name: 'a key with two certificates',
    statements: ([one, two]) => [
      'drop index intents_by_request',
      `update intents set idempotency_key = ${other('idempotency_key', 'intents', one)} where serial = ${octets(two.serial)}`,
    ],
    told: ([{ key }]) => `the idempotency key ${key} has more than one certificate`,
  },
  {
    name: 'a certificate that was answered and is not there',
    statements: ([{ serial }]) =>
      ['certificate_names', 'outcomes', 'intents'].map(
        (table) => `delete from ${table} where serial = ${octets(serial)}`,
      ),
    told: ([{ serial }]) => `the answered certificate ${serial} is not in the records`,
  },
  {
    name: 'an entry of a certificate that is not there',
    statements: ([{ serial }]) => [`delete from outcomes where serial = ${octets(serial)}`],
    told: ([{ index }]) => `entry ${index} (certificate.issued) is of a certificate that is not in the records`,
  },
  {
    name: 'a serial that occurs twice',
    statements: ([one, two]) => [
      `update intents set tbs = ${other('tbs', 'intents', one)} where serial = ${octets(two.serial)}`,
    ],
    told: ([{ serial }]) => `the serial ${serial} occurs twice`,
  },
  {
    name: 'a signature that is not that of the certificate',
    statements: ([one, two]) => [
      `update outcomes set signature = ${other('signature', 'outcomes', one)} where serial = ${octets(two.serial)}`,
    ],
    told: ([, { serial }]) => `the certificate ${serial} does not verify`,
  },
  {
    name: 'an entry that is gone',
    statements: ([{ index }]) => [`delete from entries where index = ${index}`],
    told: () => 'the roll has size ',
  },
  {
    name: 'an entry that is another than its leaf',
    statements: ([one, two]) => [
      `update entries set leaf_hash = ${other('leaf_hash', 'entries', one)} where index = ${two.index}`,
    ],
    told: ([, { index }]) => `entry ${index} (certificate.issued) does not hash to its leaf`,
  },
  {
    name: 'an entry from before the one before it',
    statements: ([, { index }]) => [`update entries set time = time - interval '1 hour' where index = ${index}`],
    told: ([, { index }]) => `entry ${index} is older than the one before it`,
  },
  {
    name: 'an outcome without an intent',
    statements: ([{ serial }]) => [`delete from intents where serial = ${octets(serial)}`],
    told: () => 'an outcome has no intent',
  },
  {
    name: 'an outcome at another entry than its own',
    statements: ([{ serial }]) => [`update outcomes set entry = 0 where serial = ${octets(serial)}`],
    told: ([{ index }]) => `entry ${index} is not that of its outcome`,
  },
  {
    name: 'an outcome that is not on the roll',
    statements: ([{ serial }]) => [`update outcomes set entry = 1000000 where serial = ${octets(serial)}`],
    told: () => 'an outcome has no entry on the roll',
  },
  {
    name: 'a certificate of another serial than its intent',
    statements: ([one, two]) => [
      `update intents set tbs = ${other('tbs', 'intents', one)} where serial = ${octets(two.serial)}`,
    ],
    told: ([one, two]) => `the certificate of intent ${two.serial} has serial ${one.serial}`,
  },
  {
    name: 'a certificate that nobody finds by its names',
    statements: ([{ serial }]) => [`delete from certificate_names where serial = ${octets(serial)}`],
    told: ([{ serial }]) => `the certificate ${serial} can't be searched`,
  },
  {
    name: 'a renewal of the certificate of another',
    statements: ([one, two]) => [
      `update intents set replaces = ${octets(one.serial)}, first = ${octets(one.serial)}, principal = 'other'
       where serial = ${octets(two.serial)}`,
    ],
    told: ([, { serial }]) => `${serial} renews what it cannot renew`,
  },
  {
    name: 'a revocation that is another than its event',
    statements: ([{ serial, index }]) => [revoked(serial, index)],
    told: ([{ index }]) => `the change of entry ${index} is not what its event says`,
  },
  {
    name: 'a revocation of what was never issued',
    statements: ([{ serial, index }]) => [
      revoked(serial, index),
      `delete from outcomes where serial = ${octets(serial)}`,
    ],
    told: ([{ serial }]) => `${serial} is revoked, and was never issued`,
  },
  {
    name: 'a revocation without an event',
    statements: ([{ serial, index }]) => [revoked(serial, index)],
    told: () => 'there are 0 events of revocations, and 1 revocations',
  },
  {
    name: 'a number that no list has',
    hasLists: true,
    statements: () => [`update crls set number = 3 where issuer = 'default' and shard = 3`],
    told: () => 'the numbers of the lists of default/3 have a gap',
  },
  {
    name: 'a list that is another than the recorded one',
    hasLists: true,
    statements: () => [
      `update crl_files set der = (select der from crl_files where issuer = 'default' and shard = 4)
       where issuer = 'default' and shard = 3`,
    ],
    told: () => 'list 1 of default/3 is not the one that was recorded',
  },
  {
    name: 'another certificate than the recorded one',
    answered: ([one, two]) => [{ ...one, certificate: two.certificate }],
    told: ([{ serial }]) => `the answered certificate ${serial} is not the recorded one`,
  },
  {
    name: 'another place than that of the entry',
    answered: ([one]) => [{ ...one, index: one.index + 1 }],
    told: ([{ serial, index }]) => `the answered certificate ${serial} is at ${index}, not at ${index + 1}`,
  },
  {
    name: 'two answers under one key',
    answered: ([one, two]) => [one, { ...two, key: one.key }],
    told: ([one, two]) => `the key ${one.key} was answered with ${one.serial} and with ${two.serial}`,
  },
]

/** Records that hold, of two certificates. Each fault is put into a copy of them. */
const openRecords = async ({ hasLists }: { readonly hasLists: boolean }) => {
  const database = await openTestDatabase(t)
  const dataDir = await mkdtemp(join(tmpdir(), 'chancery-checker-'))
  t.teardown(() => rm(dataDir, { recursive: true }))
  const service = await openTestService(t, {}, { database, config: { dataDir } })
  const csr = pem(request({ extensions: [san(dns('host.example.com'))] }))
  const issue = async (key: string): Promise<Answered> => {
    const headers = { 'idempotency-key': key }
    const { json } = await service.request('POST', '/v1/certificates', { headers, body: { csr, profile: 'server' } })
    return { key, serial: json.serial, index: json.index, certificate: json.certificate }
  }
  if (hasLists) await service.service.publishCrls()
  const pair = [await issue('one'), await issue('two')] as const
  await service.close()
  return { database, pair }
}

const plain = await openRecords({ hasLists: false })
const listed = await openRecords({ hasLists: true })

for (const [i, { name, hasLists = false, statements, answered, told }] of faults.entries()) {
  slowUnless(i % 4 === 0, `the checker finds ${name}`, async (t) => {
    const { database: copyOf, pair } = hasLists ? listed : plain
    const database = await openTestDatabase(t, { copyOf })
    t.same(await faultsInRecords(database.ownerUrl, pair), [], 'before, the records hold')
    await tamper(database, ...(statements?.(pair) ?? []))
    const found = await faultsInRecords(database.ownerUrl, answered?.(pair) ?? pair)
    t.ok(
      found.some((fault) => fault.startsWith(told(pair))),
      JSON.stringify(found),
    )
  })
}
