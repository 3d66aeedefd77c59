/**
 * Builds pkcs11js, the one native part, for keys in security modules: `node tools/pkcs11.mjs`. Node-API is the same for
 * every Node, and its headers come from npm: a C++ compiler is all it takes, without node-gyp, Python, or headers from
 * elsewhere. Plain JavaScript for any Node, since set-up runs it before ours is there.
 */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const modules = path.join(path.dirname(fileURLToPath(import.meta.url)), '..', 'node_modules')
export const pkcs11Binary = path.join(modules, 'pkcs11js/build/Release/pkcs11.node')

/** Undefined, or what the compiler said. */
export const buildPkcs11 = (compiler) => {
  const draft = `${pkcs11Binary}.${process.pid}`
  fs.mkdirSync(path.dirname(pkcs11Binary), { recursive: true })
  const { status, stderr, error } = spawnSync(
    compiler,
    [
      '-std=c++17',
      '-O2',
      '-fPIC',
      '-shared',
      ...(process.platform === 'darwin' ? ['-undefined', 'dynamic_lookup'] : []),
      '-DNAPI_DISABLE_CPP_EXCEPTIONS',
      '-DNODE_GYP_MODULE_NAME=pkcs11',
      '-Iincludes',
      `-I${path.join(modules, 'node-api-headers/include')}`,
      '-o',
      draft,
      'src/dl.cpp',
      'src/common.cpp',
      'src/main.cpp',
    ],
    { cwd: path.join(modules, 'pkcs11js'), encoding: 'utf8' },
  )
  if (status !== 0) return stderr || String(error)
  fs.renameSync(draft, pkcs11Binary)
  return undefined
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const fault = buildPkcs11('c++')
  if (fault !== undefined) {
    process.stderr.write(fault)
    process.exitCode = 1
  }
}
