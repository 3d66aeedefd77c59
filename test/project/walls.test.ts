/** The walls that a linter’s list of modules cannot express: imports of types only, and time and chance by injection. */
import { glob, readFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

const src = join(import.meta.dirname, '../../src')

const sourcesIn = async (...folders: string[]): Promise<ReadonlyMap<string, string>> => {
  const found = new Map<string, string>()
  for (const folder of folders) {
    for await (const file of glob(`${folder}/**/*.ts`, { cwd: src })) {
      found.set(file, await readFile(join(src, file), 'utf8'))
    }
  }
  return found
}

/** Import statements that are there at run time, by what they name. */
const importsOf = (source: string): readonly { readonly from: string; readonly typesOnly: boolean }[] =>
  [...source.matchAll(/^(?:import|export)\s+([^'"]*?)\s*(?:from\s+)?['"]([^'"]+)['"]/gm)].map(
    ([, what = '', from = '']) => ({
      from,
      typesOnly:
        /^type\s/.test(what) ||
        (/^\{[^}]*\}$/.test(what) &&
          what
            .slice(1, -1)
            .split(',')
            .every((name) => name.trim() === '' || /^type\s/.test(name.trim()))),
    }),
  )

t.test('ca knows keys and db by their types only, but for what is pure in them', async (t) => {
  for (const [file, source] of await sourcesIn('ca')) {
    for (const { from, typesOnly } of importsOf(source)) {
      if (/^\.\.\/(keys|db)\//.test(from) && !pure.has(from)) t.ok(typesOnly, `${file} imports ${from}`)
    }
  }
})

t.test('db knows ca and policy by their types only', async (t) => {
  for (const [file, source] of await sourcesIn('db')) {
    for (const { from, typesOnly } of importsOf(source)) {
      if (/\/(ca|policy)\//.test(from) && !pure.has(from)) t.ok(typesOnly, `${file} imports ${from}`)
    }
  }
})

t.test('time and chance come in: nobody below looks at a clock or rolls dice', async (t) => {
  for (const [file, source] of await sourcesIn('x509', 'policy', 'tlog', 'ca', 'kubernetes')) {
    t.notMatch(source, /Date\.now\(|new Date\(\)|Math\.random\(|randomBytes\(|randomUUID\(|process\.env/, file)
  }
})

t.test(
  'what a link could take the place of is given away and opened to others by what was opened, not by its name',
  async (t) => {
    for (const [file, source] of await sourcesIn('.'))
      t.notMatch(source, /\b(chown|chmod)(Sync)?\b[^'"]*from 'node:fs/, file)
  },
)

t.test(
  'only the door imports the client library of Kubernetes, and what decides about objects waits for nothing',
  async (t) => {
    for (const [file, source] of await sourcesIn('.'))
      if (file !== 'kubernetes/api/cluster.ts') t.notMatch(source, /from '@kubernetes\//, file)
    for (const [file, source] of await sourcesIn('kubernetes'))
      if (file.startsWith('kubernetes/decide/')) t.notMatch(source, /\bawait\b|\basync\b|from 'node:(?!crypto')/, file)
  },
)

t.test(
  'folders are made by what ends: where one takes no other, mkdir of Node with recursive never does',
  async (t) => {
    for (const [file, source] of await sourcesIn('.')) t.notMatch(source, /mkdir(Sync)?\([^)]*recursive/, file)
  },
)

t.test('only the door imports @peculiar/x509', async (t) => {
  for (const [file, source] of await sourcesIn('.')) {
    if (file !== 'x509/library.ts') t.notMatch(source, /from '@peculiar\//, file)
    // It takes 100 ms to be loaded: not at the start, nor to issue. Types cost nothing.
    t.notMatch(source, /^import (?!type)[^']* from '[^']*\/library\.ts'/m, file)
  }
})

t.test('four files stand outside of the folders', async (t) => {
  const loose: string[] = []
  for await (const file of glob('*.ts', { cwd: src })) loose.push(file)
  t.same(loose.sort(), ['errors.ts', 'log.ts', 'main.ts', 'metrics.ts'])
})

/** A class of errors, and the problem of a limit reached: values without a world of their own. */
const pure: ReadonlySet<string> = new Set(['../keys/signing-key.ts', '../ca/access/limit-problems.ts'])
