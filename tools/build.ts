/** Makes `dist/`: what tsc emits, and beside it the files of src that are not TypeScript. `node tools/build.ts [folder]`. */
import { spawnSync } from 'node:child_process'
import { cp, glob, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'

const root = join(import.meta.dirname, '..')
const out = resolve(process.argv[2] ?? join(root, 'dist'))

await rm(out, { recursive: true, force: true })
const tsc = join(root, 'node_modules/.bin/tsc')
const { status } = spawnSync(process.execPath, [tsc, '--project', join(root, 'tsconfig.build.json'), '--outDir', out], {
  stdio: 'inherit',
})
if (status !== 0) process.exit(status ?? 1)
for await (const entry of glob('**/*', { cwd: join(root, 'src'), withFileTypes: true })) {
  if (!entry.isFile() || entry.name.endsWith('.ts')) continue
  const path = join(entry.parentPath, entry.name)
  await cp(path, join(out, path.slice(join(root, 'src').length)))
}
