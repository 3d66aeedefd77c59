import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'
import { parse, stringify } from 'yaml'

import { exitCodes } from '../../src/lib/failure.ts'
import { newRsaKey, openTestIssuer } from '../helpers/issuer.ts'
import { chanceryFor, type Run } from '../helpers/run.ts'
import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'

const service = await openTestService(t)
const folder = await mkdtemp(join(tmpdir(), 'chancery-provider-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))

/** Runs the command as a shell would. */
const chancery = (...args: readonly string[]): Promise<Run> => chanceryFor(service)(['identity-provider', ...args])

const document = {
  name: 'github',
  issuer: 'https://token.actions.githubusercontent.com',
  keys: { static: [newRsaKey().jwk] },
  algorithms: ['RS256'],
  audience: 'https://ca.example.com',
  lifetime: '15m',
  mappings: [{ id: 'deploy', claims: { repository: 'example/web' }, principal: 'ci/deploy' }],
}

slowTest('a document is applied, shown and listed, and one with faults is told all of them', async (t) => {
  const file = join(folder, 'github.yaml')
  await writeFile(file, stringify(document))
  t.same(await chancery('apply', file), { code: 0, out: 'github is applied at version 1.\n', err: '' })
  t.equal((await chancery('apply', file)).out, 'github is unchanged at version 1.\n')
  await writeFile(file, stringify({ ...document, lifetime: '10m' }))
  t.equal((await chancery('apply', file)).out, 'github is applied at version 2.\n')
  t.equal((await chancery('apply', file, '--if-match', 'ab'.repeat(32))).code, exitCodes.conflict)
  t.same(parse((await chancery('show', 'github')).out), { ...document, lifetime: '10m' })
  t.same(parse((await chancery('show', 'github', '--at', '1')).out), document)
  t.match((await chancery('list')).out, /^github +2 +https:\/\/token\.actions/m)
  t.equal((await chancery('list', 'github')).out.trim().split('\n').length, 3)
  await writeFile(file, stringify({ ...document, algorithms: ['none'], lifetime: '25d' }))
  const { code, err } = await chancery('apply', file)
  t.equal(code, exitCodes.refused)
  t.match(err, /\/algorithms\/0[\s\S]*\/lifetime/)
  await writeFile(file, '-----BEGIN EC PRIVATE KEY-----\nMIGHAgEA\n-----END EC PRIVATE KEY-----\n')
  const key = await chancery('apply', file)
  t.match(key, { code: exitCodes.usage, err: /github\.yaml cannot be read: it holds a private key\n$/ })
  t.match(await chancery('apply', `${file}.none`), {
    code: exitCodes.usage,
    err: /^\S+\.none cannot be read \(ENOENT\)\.\n$/,
  })
  t.notMatch(key.err, /MIGH/, 'nor is it shown')
  t.equal((await chancery('show', 'gitlab')).code, exitCodes.missing)
})

slowTest('a version that makes other principals of the same people is told of', async (t) => {
  const apply = async (...principals: readonly string[]): Promise<string> => {
    const file = join(folder, 'renamed.yaml')
    const mappings = principals.map((principal, i) => ({ id: `m${i}`, claims: { sub: '*' }, principal }))
    await writeFile(file, stringify({ ...document, name: 'renamed', issuer: 'https://renamed.example.com', mappings }))
    const { code, err } = await chancery('apply', file)
    t.equal(code, 0, err)
    return err
  }
  t.equal(await apply('renamed:{sub}'), '')
  t.equal(await apply('renamed:{sub}', 'jobs:{sub}'), '', 'more of them')
  t.equal(await apply('renamed:{sub}'), '', 'fewer')
  t.match(
    await apply('renamed:{email}'),
    /^note: version 3 of renamed made renamed:\{sub\}, and this one makes renamed:\{email\}: .*whom you have disabled gets in again/,
  )
  t.equal(await apply('renamed:{/email}'), '', 'which is the one by now, by its pointer')
})

slowTest('two that can make the same principal are told of', async (t) => {
  const apply = async (name: string, ...principals: readonly string[]): Promise<string> => {
    const file = join(folder, `${name}.yaml`)
    const mappings = principals.map((principal, i) => ({ id: `m${i}`, claims: { sub: '*' }, principal }))
    await writeFile(file, stringify({ ...document, name, issuer: `https://${name}.example.com`, mappings }))
    const { code, err } = await chancery('apply', file)
    t.equal(code, 0, err)
    return err
  }
  /** With nobody in between, so that nobody is another one by it. */
  const replace = async (name: string, ...principals: readonly string[]): Promise<string> => {
    t.equal(await apply(name), '')
    return apply(name, ...principals)
  }
  const shared = (one: string, others: string): RegExp =>
    new RegExp(`^note: ${one} and ${others} can make the same principals: .*a prefix of its own\\.\n$`)
  t.equal(await apply('staff', 'people:{sub}', 'robots/{sub}'), '')
  t.equal(await apply('staff', 'people:{sub}', 'people:{sub}'), '', 'its own mappings are one provider')
  t.equal(await apply('guests', 'guests:{sub}', 'people', 'ci/deploy'), '', 'a name without a claim is meant')
  t.match(await replace('guests', 'people:{email}'), shared('guests', 'staff'))
  t.match(await replace('guests', 'people:staff/{email}'), shared('guests', 'staff'), 'a claim may have a slash')
  t.match(await replace('guests', 'people:alice'), shared('guests', 'staff'), 'whom any token there may make')
  t.match(await apply('partners', 'people:{sub}'), shared('partners', 'guests, staff'))
  t.match(await apply('staff', 'people:{sub}'), shared('staff', 'guests, partners'), 'also where nothing changes')
})

slowTest('one whose keys cannot be had is applied all the same, and that is told at once', async (t) => {
  const issuer = await openTestIssuer(t)
  const file = join(folder, 'away.yaml')
  const apply = async (name: string, keys: object, ...args: readonly string[]): Promise<Run> => {
    await writeFile(
      file,
      stringify({ ...document, name, issuer: name === 'mistyped' ? `${issuer.url}/x` : issuer.url, keys }),
    )
    return chancery('apply', file, ...args)
  }
  const discovery = { discovery: true, ca: issuer.ca }
  const until = 'note: None of its tokens is accepted until its keys can be fetched'
  t.same(await apply('mistyped', discovery), {
    code: 0,
    out: 'mistyped is applied at version 1.\n',
    err: `${until}: ${issuer.url}/x/.well-known/openid-configuration: the answer is 404.\n`,
  })
  const asJson = await apply('mistyped', discovery, '--json')
  t.match(JSON.parse(asJson.out), { version: 1, keysFault: / the answer is 404\.$/ }, 'also where nothing changes')
  t.match(await apply('away', { discovery: true }), { code: 0, err: /says who certifies it\.\n$/ })
  issuer.trouble = 'keyless'
  t.match(await apply('away', discovery), {
    code: 0,
    out: 'away is applied at version 2.\n',
    err: 'note: None of its tokens is accepted: none of the keys that it publishes verifies one by RS256.\n',
  })
  issuer.trouble = 'slow'
  t.match(await apply('away', { url: `${issuer.url}/keys`, ca: issuer.ca }), {
    code: 0,
    out: 'away is applied at version 3.\n',
    err: `${until}: ${issuer.url}/keys: no answer within 2000 ms.\n`,
  })
  issuer.trouble = 'none'
  t.same(await apply('away', discovery), { code: 0, out: 'away is applied at version 4.\n', err: '' })
  const { json } = await service.request('GET', '/v1/identity-providers/away')
  t.notOk('keysFault' in json, 'which is of that moment only')
})
