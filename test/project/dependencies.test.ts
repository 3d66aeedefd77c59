import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import t from 'tap'

const home = join(import.meta.dirname, '../..')
const read = async (name: string): Promise<string> => readFile(join(home, name), 'utf8')

interface Manifest {
  readonly version: string
  readonly dependencies: Readonly<Record<string, string>>
  readonly devDependencies: Readonly<Record<string, string>>
  readonly optionalDependencies: Readonly<Record<string, string>>
}

const manifest = JSON.parse(await read('package.json')) as Manifest
const all = { ...manifest.dependencies, ...manifest.devDependencies, ...manifest.optionalDependencies }

t.test('docs/dependencies.md has a line for each dependency, and for nothing else', async (t) => {
  const document = await read('docs/dependencies.md')
  const named = [...document.matchAll(/^\| ((?:`[^`]+`(?:, )?)+) \|/gm)].flatMap(
    ([, names = '']) => names.match(/[^`, ]+/g) ?? [],
  )
  t.strictSame(named.toSorted(), Object.keys(all).toSorted())
})

t.test('every dependency is pinned, and locked by its integrity whatever the registry', async (t) => {
  for (const [name, version] of Object.entries(all)) t.match(version, /^\d+\.\d+\.\d+(-[\w.]+)?$/, name)
  const lock = JSON.parse(await read('package-lock.json')) as {
    packages: Readonly<Record<string, { integrity?: string; resolved?: string }>>
  }
  for (const [place, { integrity, resolved }] of Object.entries(lock.packages)) {
    if (place !== '') t.ok(integrity?.startsWith('sha512-') && resolved === undefined, place)
  }
})

t.test('the lockfile has Node and PostgreSQL for every platform', async (t) => {
  const lock = JSON.parse(await read('package-lock.json')) as {
    packages: Readonly<Record<string, { version?: string }>>
  }
  for (const [name, version] of Object.entries(manifest.optionalDependencies)) {
    t.equal(lock.packages[`node_modules/${name}`]?.version, version, name)
  }
})
