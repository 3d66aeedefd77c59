/** The walls: what each folder may import, and time and chance by injection. */
import { glob, readdir, readFile } from 'node:fs/promises'
import { dirname, join, normalize } from 'node:path'

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

interface Import {
  readonly from: string
  readonly typesOnly: boolean
}

const importsOf = (source: string): readonly Import[] =>
  [
    ...source.matchAll(
      /^(?:import|export)\s+((?:type\s+)?(?:[\w*]+(?:\s+as\s+\w+)?,?\s*)?(?:\{[^}]*\})?)\s*from\s+'([^']+)'|^import '([^']+)'|\bimport\('([^']+)'\)/gm,
    ),
  ].map(([, what = '', from = '', effect = '', lazily = '']) => ({
    from: from || effect || lazily,
    typesOnly:
      /^type\s/.test(what) || (/^\{[^}]*\}$/.test(what) && namesIn(what).every((name) => /^type\s/.test(name))),
  }))

const namesIn = (braces: string): readonly string[] =>
  braces
    .slice(1, -1)
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '')

interface Wall {
  /** Folders, loose files, or single files of a folder. */
  readonly imports: readonly string[]
  /** The same, of which only types are known. */
  readonly types?: readonly string[]
  readonly packages?: readonly string[]
}

/** What each folder may import. `server` puts the parts together, and `cli` has whatever a verb needs. */
const walls: Readonly<Record<string, Wall>> = {
  lib: { imports: [], types: ['errors.ts'], packages: ['typebox', 'yaml'] },
  x509: {
    imports: ['lib', 'errors.ts'],
    packages: ['reflect-metadata', '@peculiar/webcrypto', '@peculiar/x509'],
  },
  policy: { imports: ['lib', 'x509', 'errors.ts'], packages: ['ajv', 'yaml'] },
  tlog: { imports: ['lib'] },
  keys: {
    imports: ['lib', 'x509', 'errors.ts'],
    types: ['tlog', 'log.ts'],
    packages: ['jose', 'pkcs11js'],
  },
  ca: {
    imports: ['lib', 'x509', 'policy', 'tlog', 'errors.ts', 'keys/signing-key.ts'],
    types: ['keys', 'log.ts', 'metrics.ts'],
  },
  db: {
    imports: ['lib', 'x509', 'tlog', 'errors.ts', 'ca/access/limit-problems.ts'],
    types: ['ca', 'policy', 'log.ts'],
    packages: ['pg'],
  },
  http: {
    imports: ['lib', 'x509', 'policy', 'tlog', 'ca', 'errors.ts', 'log.ts'],
    types: ['metrics.ts'],
    packages: ['fastify', '@fastify/', 'yaml'],
  },
  config: { imports: ['lib', 'x509', 'tlog', 'keys', 'errors.ts'], packages: ['yaml'] },
  client: { imports: ['lib', 'x509', 'policy', 'keys', 'errors.ts', 'http/bounds.ts'] },
  kubernetes: {
    imports: ['lib', 'client', 'errors.ts'],
    types: ['log.ts'],
    packages: ['@kubernetes/client-node', 'prom-client', 'yaml'],
  },
  witness: { imports: ['tlog'], types: ['log.ts'] },
  auditor: {
    imports: ['lib', 'x509', 'policy', 'tlog', 'keys', 'db', 'config', 'client', 'errors.ts'],
    types: ['log.ts'],
    packages: ['pino'],
  },
  server: {
    imports: ['lib', 'x509', 'policy', 'tlog', 'keys', 'ca', 'db', 'http', 'config', 'errors.ts', 'metrics.ts'],
    types: ['log.ts'],
    packages: ['prom-client'],
  },
}

const fits = (from: string, places: readonly string[]): boolean =>
  places.some((place) => from === place || from.startsWith(place.endsWith('/') ? place : `${place}/`))

t.test(
  'no folder imports what is not on its list, and values of nothing that it may know by types alone',
  async (t) => {
    for (const [folder, { imports, types = [], packages = [] }] of Object.entries(walls)) {
      for (const [file, source] of await sourcesIn(folder)) {
        for (const { from, typesOnly } of importsOf(source)) {
          const isOurs = from.startsWith('.')
          const to = isOurs ? normalize(join(dirname(file), from)) : from
          if (to.startsWith(`${folder}/`) || to.startsWith('node:')) continue
          const allowed = isOurs ? [...imports, ...(typesOnly ? types : [])] : packages
          t.ok(fits(to, allowed), `${file} imports ${to}`)
        }
      }
    }
  },
)

t.test('no file imports itself by way of others, not even a type', async (t) => {
  const sources = await sourcesIn('.')
  const edges = new Map(
    [...sources].map(([file, source]) => [
      file,
      importsOf(source).flatMap(({ from }) => (from.startsWith('.') ? [normalize(join(dirname(file), from))] : [])),
    ]),
  )
  const circles = new Set<string>()
  const done = new Set<string>()
  const follow = (file: string, way: readonly string[]): void => {
    if (way.includes(file)) circles.add([...way.slice(way.indexOf(file)), file].join(' → '))
    else if (!done.has(file)) for (const next of edges.get(file) ?? []) follow(next, [...way, file])
    done.add(file)
  }
  for (const file of edges.keys()) follow(file, [])
  t.same([...circles], [])
})

t.test('no file is longer than 500 lines, but for tables', async (t) => {
  for (const [file, source] of await sourcesIn('.')) {
    if (!tables.has(file)) t.ok(source.split('\n').length <= 501, file)
  }
})

const tables: ReadonlySet<string> = new Set(['errors.ts', 'policy/checks.ts', 'config/settings.ts'])

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

t.test('src holds four files and the folders that docs/architecture.md lists', async (t) => {
  const plan = await readFile(join(src, '../docs/architecture.md'), 'utf8')
  const folders = [...plan.matchAll(/^\| `(\w+)\/` \|/gm)].map(([, folder]) => folder)
  t.same((await readdir(src)).sort(), [...folders, 'errors.ts', 'log.ts', 'main.ts', 'metrics.ts'].sort())
})
