import { readFileSync } from 'node:fs'

import t from 'tap'

import { checks } from '../../src/policy/checks.ts'
import { decide, recheck } from '../../src/policy/decide.ts'
import { ask, context, keyOf, seeds } from './requests.ts'

const rows = checks.map(({ id, code, passes }) => `| \`${id}\` | \`${code}\` | ${passes} |`)
const text = readFileSync(new URL('../../docs/policy.md', import.meta.url), 'utf8')

t.test('docs/policy.md has a row for every check, in the order in which they run, and no other', async (t) => {
  const written = text
    .split('\n')
    .filter((line) => /^\| `(?!recheck)[a-zA-Z]+\.[^|]*\| `[a-z_]+\.[a-z_]+` *\|/.test(line))
    .map((line) => line.replace(/ +\|/g, ' |'))
  t.same(written, rows)
})

t.test('ids of checks are unique', async (t) => {
  t.equal(new Set(checks.map(({ id }) => id)).size, checks.length)
})

t.test('a decision carries no check that the docs do not list, and every one that concerns its profile', async (t) => {
  const ids = checks.map(({ id }) => id)
  for (const profile of seeds.values()) {
    const { checks: said } = decide(profile, ask({}), context)
    const named = new Set(said().map(({ check }) => check.replace(/^(bind|rule)\..*/, '$1.<id>')))
    for (const check of named) t.ok(ids.includes(check), check)
    const attributes = profile.subject.map(({ type }) => `subject.${type}`)
    const general = ids.filter((id) => !/^subject\.(?!others|systemMasters|present)|^(bind|rule)\./.test(id))
    for (const id of [...attributes, ...general]) t.ok(named.has(id), `${profile.name} ${id}`)
  }
})

t.test('docs/policy.md lists the checks that the recheck adds', async (t) => {
  const facts = {
    subject: [],
    names: [],
    key: keyOf('ec-p256'),
    notBefore: new Date(0),
    notAfter: new Date(0),
    ca: true,
  }
  const [profile] = seeds.values()
  if (profile === undefined) return t.fail('there are no seeds')
  const added = recheck({ ...profile, others: 'drop' }, { ...facts, subject: [{ type: 'title', value: 'x' }] }, context)
    .map(({ check }) => check)
    .filter((check) => check.startsWith('recheck.'))
  const written = [...text.matchAll(/^\| `(recheck\.[a-zA-Z]+)`/gm)].map(([, id]) => id)
  t.same(written, added)
})
