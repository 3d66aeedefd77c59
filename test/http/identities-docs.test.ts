/** docs/identities.md: its documents are good ones, and let in whom they say; its table of reasons is what the code has. */
import { readFile } from 'node:fs/promises'

import t from 'tap'
import { parse } from 'yaml'

import { isProblem, problems } from '../../src/errors.ts'
import { decideIdentity, parseProvider } from '../../src/policy/identity.ts'
import { openClientCa } from '../helpers/clients.ts'
import { blocksOf } from '../helpers/docs.ts'
import { githubJob, serviceAccount } from '../helpers/issuer.ts'

const blocks = await blocksOf('docs/identities.md')
const page = await readFile(new URL('../../docs/identities.md', import.meta.url), 'utf8')

const read = (name: string) => {
  const block = blocks.get(name)
  if (block === undefined) throw new Error(`there is no block ${name}`)
  const pem = openClientCa().pem.trimEnd().replaceAll('\n', '\n    ')
  return parseProvider(parse(block.replace(/-----BEGIN[\s\S]*END CERTIFICATE-----/, pem)), { version: 1 })
}

const whoIs = (name: string, claims: object): string => {
  try {
    return decideIdentity(read(name), { jti: 'x', ...claims }).principal
  } catch (error) {
    if (isProblem(error)) return error.code
    throw error
  }
}

t.test('its documents let in whom they say', async (t) => {
  t.equal(whoIs('kubernetes', serviceAccount('shop', 'web')), 'cluster-1:shop:web')
  t.equal(whoIs('kubernetes', serviceAccount('prod', 'web')), 'auth.unmapped')
  const [grant] = decideIdentity(read('kubernetes'), serviceAccount('shop', 'web') as Record<string, unknown>).grants
  t.same(grant?.names, { dns: { allow: ['web.shop.example.internal'] } })
  t.equal(whoIs('kubernetes-static', serviceAccount('ingress', 'controller')), 'ingress')
  const job = githubJob('example/web', { repository_id: '123456789' })
  t.equal(whoIs('github', job), 'ci/deploy')
  t.equal(whoIs('github', { ...job, repository_id: '1' }), 'auth.unmapped')
  t.equal(whoIs('github', { ...job, ref: 'refs/pull/1/merge', event_name: 'pull_request' }), 'github:example/web')
  t.equal(whoIs('people', { sub: 'alice', groups: ['staff', 'pki-approvers'] }), 'people:alice')
  t.equal(whoIs('people', { sub: 'alice', groups: ['staff'] }), 'auth.unmapped')
  const controller = serviceAccount('chancery-system', 'chancery-controller') as Record<string, unknown>
  t.equal(whoIs('controller', controller), 'controllers/cluster-1')
  t.equal(whoIs('controller', serviceAccount('chancery-system', 'other')), 'auth.unmapped')
  t.match(decideIdentity(read('controller'), controller).grants, [
    { onBehalfOf: { required: true, namespaces: { deny: ['kube-system'] } } },
    { profiles: ['kubelet-serving'], onBehalfOf: { required: true, namespaces: { deny: ['**'] } } },
  ])
  const pipeline = { project_id: '22', project_path: 'group/web', ref_protected: 'true', environment_protected: 'true' }
  t.equal(whoIs('gitlab', pipeline), 'gitlab:group/web')
  t.equal(whoIs('gitlab', { ...pipeline, ref_protected: 'false' }), 'auth.unmapped')
})

t.test('every reason that the code gives has a line, with its code, and no other has', async (t) => {
  const source = new URL('../../src/', import.meta.url)
  const files = [
    'ca/access/client-certificates.ts',
    'ca/access/tokens.ts',
    'keys/jwt.ts',
    'policy/identity.ts',
    'db/callers.ts',
  ]
  const text = (await Promise.all(files.map((file) => readFile(new URL(file, source), 'utf8')))).join('\n')
  const told = [...page.matchAll(/^\| (`(?:token|certificate|jwt|principal)\.[^|]*) \| ([^|]*) \|/gm)].flatMap(
    ([, reasons = '', codes = '']) => {
      for (const [, code = ''] of codes.matchAll(/`([a-z_.]+)`/g)) t.ok(Object.hasOwn(problems, code), code)
      return [...reasons.matchAll(/`([a-z_.]+)(?:: …)?`/g)].map(([, reason = '']) => reason)
    },
  )
  const words = new Set(
    [...text.matchAll(/'([a-z_.]+)'|`jwt\.([a-z_]+): /g)].flatMap(([, one, other]) => one ?? other ?? []),
  )
  for (const reason of told) {
    const [, word = ''] = /\.(.*)/.exec(reason) ?? []
    t.ok(words.has(reason) || words.has(word), `${reason} is one of the code`)
  }
  const made = [
    ...text.matchAll(/(?:invalid|refused|TokenFault|refusal)\((?:'auth\.[a-z]+', )?'([a-z_]+)'/g),
    ...text.matchAll(/reason: '([a-z_.]+)'/g),
  ].map(([, reason = '']) => reason)
  t.ok(made.length > 25, made.join())
  for (const reason of made)
    t.ok(
      told.some((one) => one === reason || one.endsWith(`.${reason}`)),
      `${reason} has a line`,
    )
})
