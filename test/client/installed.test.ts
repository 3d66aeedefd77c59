/**
 * What `npm pack` makes, laid out as `npm install -g` lays it out, and run by whatever Node is there. The packages are those
 * of this tree instead of the registry's; docs/client.md tells how the rest was looked at.
 */
import { execFile, execFileSync, spawnSync } from 'node:child_process'
import {
  chmod,
  chown,
  copyFile,
  cp,
  mkdir,
  readdir,
  readFile,
  realpath,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'

import { openTestService } from '../helpers/service.ts'
import { slowTest } from '../helpers/slow.ts'
import { newFolder, readShown } from './folders.ts'

t.setTimeout(300_000)
const home = join(import.meta.dirname, '..', '..')
const run = promisify(execFile)

/** Any from 20 on does; a machine has another one than ours at best. */
const systemNode = ['/usr/bin/node', '/usr/local/bin/node', process.execPath].find(isNode) ?? process.execPath

function isNode(path: string): boolean {
  try {
    return Number(/v(\d+)/.exec(execFileSync(path, ['--version'], { encoding: 'utf8' }))?.[1]) >= 20
  } catch {
    return false
  }
}

/** Root may write everywhere; where this tree lets others in, another user runs what root has installed. */
const stranger = { uid: 10_001, gid: 10_001 }
const isRoot = process.geteuid?.() === 0
const identity: Partial<typeof stranger> = isRoot && spawnSync('ls', [home], stranger).status === 0 ? stranger : {}

slowTest('the packed project is installed, and issues for somebody who may not write there', async (t) => {
  const folder = await realpath(await newFolder(t))
  const tree = join(folder, 'tree')
  await mkdir(tree)
  for (const name of await readdir(home)) {
    if (['node_modules', 'data', 'dist', '.git', '.tap'].includes(name) || name.startsWith('.chancery-setup')) continue
    await cp(join(home, name), join(tree, name), { recursive: true })
  }
  await symlink(join(home, 'node_modules'), join(tree, 'node_modules'))
  const env = { PATH: process.env['PATH'], HOME: folder }
  const { scripts } = JSON.parse(await readFile(join(home, 'package.json'), 'utf8'))
  t.equal(scripts.prepack, 'node tools/setup.mjs build && cp package-lock.json npm-shrinkwrap.json')
  // The same by hand: set-up might find something to install, and this tree has its packages by a link to ours.
  // tap loads modules of its own into every Node below it, by NODE_OPTIONS: tsc does not survive them.
  await run('env', ['-u', 'NODE_OPTIONS', process.execPath, 'tools/build.ts'], { cwd: tree, env })
  await copyFile(join(tree, 'package-lock.json'), join(tree, 'npm-shrinkwrap.json'))
  await run('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', folder], { cwd: tree, env })

  const [archive = ''] = (await readdir(folder)).filter((name) => name.endsWith('.tgz'))
  await mkdir(join(folder, 'lib'))
  await run('tar', ['-xzf', join(folder, archive), '-C', join(folder, 'lib')])
  const place = join(folder, 'lib', 'package')
  const files = (await readdir(place, { recursive: true })).filter((name) => /\.(ts|test\.js)$/.test(name))
  t.same(files, [], 'no sources that Node would refuse to run from there, and no tests')
  const locked = JSON.parse(await readFile(join(place, 'npm-shrinkwrap.json'), 'utf8'))
  t.same(locked, JSON.parse(await readFile(join(home, 'package-lock.json'), 'utf8')), 'what it needs is locked')
  // Without .bin/node, which npm 9 and 10 take away with the Nodes of other platforms.
  for (const [name, { dev }] of Object.entries<{ dev?: boolean }>(locked.packages)) {
    const from = join(home, name)
    if (!/^node_modules\/(@[^/]+\/)?[^/]+$/.test(name) || dev || !(await isThere(from))) continue
    await mkdir(join(place, name, '..'), { recursive: true })
    await symlink(from, join(place, name))
  }
  await mkdir(join(folder, 'bin'))
  await chmod(join(place, 'bin/chancery.mjs'), 0o755)
  await symlink(join(place, 'bin/chancery.mjs'), join(folder, 'bin/chancery'))
  await symlink(systemNode, join(folder, 'bin/node'))
  await run('chmod', ['-R', 'a-w,a+rX', place])
  await chmod(folder, 0o755)
  t.teardown(async () => {
    await run('chmod', ['-R', 'u+w', place])
    await rm(folder, { recursive: true, force: true })
  })

  const service = await openTestService(t)
  await writeFile(join(folder, 'root.pem'), service.ca)
  const said = {
    PATH: `${join(folder, 'bin')}:/usr/bin:/bin`,
    CHANCERY_URL: service.url,
    CHANCERY_CACERT: join(folder, 'root.pem'),
    CHANCERY_TOKEN: service.adminToken,
  }
  const chancery = async (...args: readonly string[]): Promise<string> =>
    (await run('chancery', args, { cwd: folder, env: said, ...identity })).stdout
  const { version } = JSON.parse(await readFile(join(home, 'package.json'), 'utf8'))
  t.equal(await chancery('--version'), `${version}\n`)
  const out = join(folder, 'web')
  await mkdir(out)
  if (identity.uid !== undefined) await chown(out, stranger.uid, stranger.gid)
  t.match(await chancery('issue', '--profile', 'server', '--name', 'packed.example.com', '--out', out), /^serial /)
  t.equal((await readShown(out))?.certificate.subjectAltName, 'DNS:packed.example.com')
})

const isThere = (path: string): Promise<boolean> =>
  readdir(path).then(
    () => true,
    () => false,
  )
