/** What `chancery roll` tells beside what it was asked: of issuances without names, of witnesses, of what it cannot read. */
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import pg from 'pg'
import t from 'tap'

import { exitCodes } from '../../src/lib/failure.ts'
import { encodeNote, encodeVerifierKey, parseNote, signText } from '../../src/tlog/note.ts'
import { openTestStores } from '../db/stores.ts'
import { bare } from '../helpers/environment.ts'
import { type Run, runChancery } from '../helpers/run.ts'
import { newSigner } from '../tlog/hashing.ts'

t.setTimeout(300_000)
const { service, issue } = await openTestStores(t)
const folder = await mkdtemp(join(tmpdir(), 'chancery-roll-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
const at = (...names: readonly string[]): string => join(folder, ...names)

const chancery = (...args: readonly string[]): Promise<Run> =>
  runChancery(['roll', ...args], {
    env: { ...bare, CHANCERY_DATA: service.config.dataDir, CHANCERY_URL: service.url },
  })

const key = at('roll.key')
await writeFile(key, (await chancery('key')).out)
await issue(['dns:web.example.com'])
await chancery('export', '--out', at('whole'), '--key', key)
const bundle = join('tile/entries/000.p', ...(await readdir(at('whole', 'tile/entries/000.p'))))

t.test('what a search cannot read is told without the words of a request, and with what says more', async (t) => {
  const verify = '"chancery roll verify" says whether it is the one that the checkpoint was signed over.'
  const newer = ' If it is, search with the version of Chancery that wrote it.'
  for (const [was, is, sentence, more] of [
    ['"certificate":"MII', '"certificate":"NII', /^The certificate of entry \d+ cannot be read: (?!policy\.)/, ''],
    ['"type":"certificate.issued"', '"type":"certificate.issuee"', /^Entry \d+ cannot be read: /, newer],
  ] as const) {
    await cp(at('whole'), at('flipped'), { recursive: true, force: true })
    const octets = await readFile(at('flipped', bundle))
    // The first one is that of an issuer.
    octets.write(is, octets.lastIndexOf(was))
    await writeFile(at('flipped', bundle), octets)
    const { code, err } = await chancery('search', '--name', 'x', '--key', key, '--from', at('flipped'))
    t.equal(code, exitCodes.refused)
    const told = err.split('\n').filter((line) => / cannot be read: /.test(line))
    t.match(told, [sentence])
    t.ok(told[0]?.endsWith(`; ${verify}${more}`), err)
  }
})

t.test('a search says how many issuances were abandoned, since no entry has their names', async (t) => {
  const search = (...more: readonly string[]) => chancery('search', '--name', 'web.example.com', '--key', key, ...more)
  t.match(JSON.parse((await search('--json')).out), { items: { length: 1 }, abandoned: 0 })
  t.notMatch((await search()).out, /abandoned/)
  const owner = new pg.Client({ connectionString: service.database.ownerUrl })
  await owner.connect()
  for (const [more, text] of [
    [1, 'Of 1 issuance that was abandoned no entry tells the names: '],
    [2, 'Of 3 issuances that were abandoned no entry tells the names: '],
  ] as const) {
    await owner.query(
      `insert into intents (serial, principal, attempt, digest, issuer, shard, profile, profile_version, tbs, plan, created_at)
      select uuid_send(gen_random_uuid()), principal, 1, digest, issuer, shard, profile, profile_version, tbs, plan,
        now() - interval '5 seconds' from (select * from intents limit 1) one, generate_series(1, $1::int)`,
      [more],
    )
    t.equal(await service.service.reconcile(0), more)
    // Answered when there is a checkpoint over all that came before.
    await issue(['dns:later.example.com'])
    const { code, out } = await search()
    t.equal(code, 0)
    t.match(out, `, and no others.\n${text}`)
  }
  await owner.end()
  t.match(JSON.parse((await search('--json')).out), { items: { length: 1 }, abandoned: 3 })
})

t.test('whether the witnesses whose keys are given have cosigned the newest checkpoint is told', async (t) => {
  const [one, two] = [
    newSigner('w.example/one', 'cosignature', 1_790_000_000),
    newSigner('w.example/two', 'cosignature'),
  ]
  const verify = (keys: readonly string[], ...more: readonly string[]) =>
    chancery('verify', '--from', at('cosigned'), ...[key, ...keys].flatMap((each) => ['--key', each]), ...more)
  await cp(at('whole'), at('cosigned'), { recursive: true })
  const { text, signatures } = parseNote(await readFile(at('whole', 'checkpoint')))
  const cosigned = encodeNote({ text, signatures: [...signatures, await signText(text, one)] })
  await writeFile(at('cosigned', 'checkpoint'), cosigned)
  t.notMatch((await verify([])).out, /cosigned/)
  const keys = [one, two].map((signer) => encodeVerifierKey(signer.key))
  const { code, out } = await verify(keys)
  t.equal(code, 0, 'a witness may be away')
  t.ok(
    out.endsWith(
      '\ncosigned by w.example/one at 2026-09-21T14:13:20.000Z\nnot cosigned by w.example/two, who may see another roll\n',
    ),
    out,
  )
  const witnesses = [
    { name: 'w.example/one', time: '2026-09-21T14:13:20.000Z' },
    { name: 'w.example/two', time: null },
  ]
  t.match(JSON.parse((await verify(keys, '--json')).out), { found: 0, witnesses })
  // Given once more, as alone and in a file of all, it is no other one that has not.
  const twice = JSON.parse((await verify([...keys, ...keys], '--json')).out)
  t.same(twice.witnesses, witnesses)
})

t.test('a cosignature of a time that no date can tell does not hold', async (t) => {
  const witness = newSigner('w.example/late', 'cosignature', 8_640_000_000_001)
  await cp(at('whole'), at('late'), { recursive: true })
  const { text, signatures } = parseNote(await readFile(at('whole', 'checkpoint')))
  await writeFile(
    at('late', 'checkpoint'),
    encodeNote({ text, signatures: [...signatures, await signText(text, witness)] }),
  )
  const keys = ['--key', key, '--key', encodeVerifierKey(witness.key)]
  const told = {
    code: exitCodes.refused,
    err: /none of this roll: the signature by w\.example\/late does not hold\./,
  }
  for (const verb of ['verify', 'checkpoint'])
    t.match(await chancery(verb, '--from', at('late'), ...keys, '--json'), told)
})

t.test('a checkpoint that is none is told with the file that it is in', async (t) => {
  const text = await readFile(at('whole', 'checkpoint'), 'utf8')
  const [other, older] = [text.replace(/^.*$/m, 'another.example/roll'), text.replace(/\n.*\n/, '\n1\n')]
  await writeFile(at('other'), other)
  await writeFile(at('older'), older)
  const state = ['--state', at('named'), '--key', key]
  t.match(await chancery('verify', '--from', at('whole'), ...state), { code: 0 })
  const given = ['--checkpoint', at('other'), '--checkpoint', at('older')]
  const { code, out } = await chancery('verify', '--from', at('whole'), ...given, ...state)
  t.equal(code, exitCodes.refused)
  for (const name of ['other', 'older'])
    t.match(out, new RegExp(`^at \\d+ checkpoint\\.invalid: .* \\(${at(name)}\\)$`, 'm'))
})
