/** How tests are run (tools/tests.ts). */
import { spawn } from 'node:child_process'
import { glob, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t, { type Test } from 'tap'

import { bare } from '../helpers/environment.ts'
import { slowTest } from '../helpers/slow.ts'

const tool = join(import.meta.dirname, '../../tools/tests.ts')

interface Runs {
  readonly signalled?: NodeJS.Signals
  readonly env?: Readonly<Record<string, string>>
  /** Seconds for each file. A busy machine may take one to start Node. */
  readonly patience?: number
}

/** Runs these files, in a folder for temporary things where no server is. */
const runTests = async (
  t: Test,
  files: Readonly<Record<string, string>>,
  { signalled, env: more = {}, patience = 60 }: Runs = {},
) => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-tests-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  await mkdir(join(folder, 'deep'))
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text)
  const env = { ...bare, ...more, TMPDIR: folder, TAP_TIMEOUT: String(patience) }
  const child = spawn(process.execPath, [tool, folder], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  let out = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text
    if (signalled && text.startsWith('TAP')) setTimeout(() => child.kill(signalled), 500)
  })
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  return { code, out, summary: out.split('\n').find((line) => line.startsWith('# {')) }
}

/** With ever more patience, until it is enough to start a Node on a busy machine: what hangs, hangs whatever there is of it. */
const runUntil = async (
  found: RegExp,
  t: Test,
  files: Readonly<Record<string, string>>,
  patience = 3,
): ReturnType<typeof runTests> => {
  const ran = await runTests(t, files, { patience })
  return found.test(ran.out) || patience > 60 ? ran : runUntil(found, t, files, patience * 2)
}

const passing = "console.log('ok 1 - is so\\n1..1\\n# { total: 2, pass: 1, skip: 1 }')"

t.test('files in all folders are run, and their assertions summed up', async (t) => {
  const files = { 'a.test.ts': passing, 'deep/b.test.ts': passing, 'helper.ts': 'process.exit(3)' }
  const { code, out, summary } = await runTests(t, files)
  t.equal(code, 0)
  t.equal(summary, '# { total: 4, pass: 2, skip: 2 }')
  t.match(out, /^1\.\.2$/m)
  t.match(out, /^ok \d - .*b\.test\.ts # time=\d+ms$/m)
  t.match(out, /^ {4}ok 1 - is so$/m)
})

t.test('slow tests are left out only where nobody asks for them, and it is said how many', async (t) => {
  const helper = join(import.meta.dirname, '../helpers/slow.ts')
  const files = {
    'a.test.ts': `import { slowTest } from '${helper}'; slowTest('long', async (t) => { t.pass() }); slowTest('longer', async () => {})`,
    'b.test.ts': passing,
  }
  const brief = await runTests(t, files, { env: { SLOW_TESTS: 'no' } })
  t.equal(brief.code, 0)
  t.match(brief.out, /^# slow tests left out: 2 \(npm test -- --all runs them too\)$/m)
  t.match(brief.out, /^ {4}ok 1 - long # SKIP a slow test/m)
  const whole = await runTests(t, files)
  t.equal(whole.code, 0)
  t.notMatch(whole.out, /slow tests left out/)
  t.match(whole.out, /^ {4}ok 1 - long # time=/m)
})

slowTest('whoever fails, crashes, ends without a word or hangs has failed', async (t) => {
  const beside = /^ok \d - .*b\.test\.ts/m
  const failing = "console.log('not ok 1 - is not so\\n# { total: 3, pass: 1, fail: 2 }'); process.exitCode = 1"
  for (const [name, { text, summary }] of Object.entries({
    failing: { text: failing, summary: '# { total: 5, pass: 2, fail: 2, skip: 1 }' },
    crashing: { text: `${passing}; throw new Error()`, summary: '# { total: 5, pass: 2, fail: 1, skip: 2 }' },
    silent: { text: '', summary: '# { total: 3, pass: 1, fail: 1, skip: 1 }' },
    hanging: {
      text: "process.on('SIGTERM', () => {}); setInterval(() => {}, 1)",
      summary: '# { total: 3, pass: 1, fail: 1, skip: 1 }',
    },
  })) {
    const files = { 'a.test.ts': text, 'b.test.ts': passing }
    const { code, out, ...ran } = await (name === 'hanging' ? runUntil(beside, t, files) : runTests(t, files))
    t.equal(code, 1, name)
    t.equal(ran.summary, summary, name)
    t.match(out, /^not ok \d - .*a\.test\.ts/m, name)
    t.match(out, beside, name)
  }
})

t.test('a signal ends what runs, and nothing else is begun', async (t) => {
  const files = Object.fromEntries(
    Array.from({ length: 50 }, (_, i) => [`${i}.test.ts`, 'setTimeout(() => {}, 20_000)'] as const),
  )
  const { code, out } = await runTests(t, files, { signalled: 'SIGTERM', patience: 1 })
  t.equal(code, 1)
  t.ok(out.split('\n').filter((line) => line.startsWith('not ok')).length < 50)
})

t.test('a name that is none is an error', async (t) => {
  const child = spawn(process.execPath, [tool, 'test/nowhere.test.ts'], { env: bare })
  t.not(await new Promise<number | null>((resolve) => child.once('close', resolve)), 0)
})

/** Of a call, what is between its parentheses; no text with brackets in it misleads. */
const argumentsOf = (call: string): string => {
  let open = 0
  for (let at = 0; at < call.length; at++) {
    if ('([{'.includes(call.charAt(at))) open++
    if (')]}'.includes(call.charAt(at)) && --open === 0) return call.slice(1, at)
  }
  return ''
}

/** In objects and lists that are what `match` is to find. */
const idlePatterns = (source: string): readonly string[] =>
  source
    .replaceAll(/'(?:[^'\\\n]|\\.)+'/g, "'text'")
    .replaceAll(/(?<=[(,[] ?|: )\/(?:[^/\\\n]|\\.)+\//g, '/form/')
    .split(/\bt\.match(?=\()/)
    .slice(1)
    .map((rest) => /,\s+[{[].*/s.exec(argumentsOf(rest))?.[0].slice(1).trimStart() ?? '')
    .filter((pattern) => /(?:\w: |, |\[)(?:''|\[\]|new Date\([^)]*\))(?=[,\s\]}]|$)/.test(pattern))

t.test(
  "no pattern of tap's match has an empty text, an empty list or a date: they match all of their kind",
  async (t) => {
    for (const pattern of ["{ a: '' }", '{ a: 1, b: [] }', "[{ a: 'x' }, '']", '{ a: new Date(0) }'])
      t.equal(idlePatterns(`t.match(f('(', []), ${pattern})`).length, 1, pattern)
    for await (const path of glob('**/*.test.ts', { cwd: import.meta.dirname }))
      t.same(idlePatterns(await readFile(join(import.meta.dirname, path), 'utf8')), [], path)
  },
)
