/** The archive for a machine that is not online: what it holds is enough, without a network and without this tree. */
import { execFile, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'

import { blocksOf } from '../helpers/docs.ts'
import { slowTest } from '../helpers/slow.ts'

const run = promisify(execFile)
t.setTimeout(300_000)

/** A network namespace of its own has no network; not everyone may make one. */
const apart = spawnSync('unshare', ['--net', 'true']).status === 0 ? ['unshare', '--net'] : ['env']

slowTest('a root is made from the archive alone, without a network', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-bundle-test-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const path = join(folder, 'chancery-test.tar.gz')
  // tap loads modules of its own into every Node below it, by NODE_OPTIONS: tsc does not survive them.
  const tool = join(import.meta.dirname, '../../tools/bundle.ts')
  // Compressing 200 MB well takes longer than all else here.
  const { stdout: told } = await run('env', ['-u', 'NODE_OPTIONS', 'GZIP=-1', process.execPath, tool, path])
  const sha256 = told.slice(0, 64)
  t.equal(
    createHash('sha256')
      .update(await readFile(path))
      .digest('hex'),
    sha256,
  )
  await run('tar', ['-xf', path, '-C', folder])
  const home = join(folder, 'chancery-test')
  const env = { PATH: `${home}:/usr/bin:/bin`, HOME: folder }
  const type = async (commands: string): Promise<string> => {
    const [command = '', ...before] = apart
    const { stdout, stderr } = await run(command, [...before, 'bash', '-ceu', commands], { cwd: folder, env })
    return stdout + stderr
  }
  t.match(await type('chancery --version'), /^\d+\.\d+\.\d+\n$/)
  t.match(await type('ln -s "$(command -v chancery)" linked; ./linked --version'), /^\d+\.\d+\.\d+\n$/, 'by a link')
  await t.rejects(type('chancery serve'), {
    code: 2,
    stderr: /^There is no embedded PostgreSQL in this installation .*CHANCERY_DATABASE_URL/,
  })
  const blocks = await blocksOf('docs/ceremonies.md')
  await type(blocks.get('offline-prepare') ?? '')
  const said = await type((blocks.get('offline-root') ?? '').replaceAll(/^chancery ceremony .*$/gm, '$& --yes'))
  t.match(said, /CN\s*=\s*Example Root 2026/)

  // A key in a token needs the native part, which tells that it is there by what it says of a module that is not.
  await mkdir(join(folder, 'token'))
  await writeFile(join(folder, 'token', 'pin'), '1234\n', { mode: 0o600 })
  const yaml = (blocks.get('offline-root') ?? '').split('\n').slice(1)
  const parameters = yaml
    .slice(0, yaml.indexOf('YAML'))
    .join('\n')
    .replace('uri: file:root.key.pem', 'uri: pkcs11:token=root;object=root\n  module: /nowhere.so\n  pinFile: pin')
    .replace(/ {2}passphraseFile.*\n/, '')
  await writeFile(join(folder, 'token', 'root.yaml'), parameters)
  await t.rejects(type('chancery ceremony root token/root.yaml --yes'), {
    message: /no PKCS#11 module at \/nowhere\.so/,
  })
})
