/** What the README tells people to type is typed here, as it stands, in a folder that has only what a clone has. */
import { execFile, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'

import { blocksOf } from '../helpers/docs.ts'
import { freePort } from '../helpers/port.ts'
import { slowTest } from '../helpers/slow.ts'

const root = join(import.meta.dirname, '../..')
const run = promisify(execFile)

t.setTimeout(300_000)

slowTest('README: one command starts it, and its examples do what they say', async (t) => {
  const blocks = await blocksOf('README.md')
  t.same([...blocks.keys()], ['start', 'first', 'explain', 'request', 'curl'])
  const folder = await mkdtemp(join(tmpdir(), 'chancery-readme-'))
  for (const name of ['package.json', 'tools']) await symlink(join(root, name), join(folder, name))
  const [port, publicPort] = [await freePort(), await freePort()]
  const env = {
    PATH: process.env['PATH'],
    HOME: process.env['HOME'],
    CHANCERY_LISTEN: `127.0.0.1:${port}`,
    CHANCERY_PUBLIC_LISTEN: `127.0.0.1:${publicPort}`,
    CHANCERY_URL: `https://localhost:${port}`,
  }
  // The service's own settings are not the client's: each gets what it would have in its own terminal.
  const { CHANCERY_URL: _, ...serverEnv } = env
  const server = spawn('bash', ['-ceu', `exec ${blocks.get('start')}`], { cwd: folder, env: serverEnv, detached: true })
  let said = ''
  for (const stream of [server.stdout, server.stderr]) {
    stream.on('data', (chunk) => {
      said += chunk
    })
  }
  // What npm has started may end after it, and writes here until then.
  const ended = new Promise((resolve) => server.once('close', resolve))
  t.teardown(async () => {
    if (server.exitCode === null && server.pid) process.kill(-server.pid, 'SIGTERM')
    await ended
    await rm(folder, { recursive: true, force: true })
  })
  while (!said.includes('Chancery serves at')) {
    if (server.exitCode !== null) throw new Error(`npm start ended:\n${said}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  while (!said.includes('Ctrl-C')) await new Promise((resolve) => setTimeout(resolve, 50))
  t.ok(said.trim().split('\n').length <= 15, said)
  for (const told of [
    /^ {2}API docs +https:\S+\/docs$/m,
    /root certificate +data\/root\.pem$/m,
    /token +data\/admin\.token$/m,
  ])
    t.match(said, told)
  t.match(
    said,
    new RegExp(
      `chancery -- issue --profile server --name web.example.com --out web --server https://127.0.0.1:${port} `,
    ),
  )
  t.match(said, /log +data\/chancery\.log$/m)
  t.match(await readFile(join(folder, 'data/chancery.log'), 'utf8'), /"event":"bootstrap\.admin"/)
  const type = async (name: string): Promise<string> => {
    const commands = (blocks.get(name) ?? '').replaceAll('localhost:8443', `localhost:${port}`)
    const { stdout } = await run('bash', ['-ceu', '-o', 'pipefail', commands], { cwd: folder, env })
    return stdout
  }
  t.match(await type('first'), /^serial [\s\S]*web\/certificate\.pem: OK\n$/)
  await type('request')
  t.equal(await type('curl'), 'web.pem: OK\n')
  const chain = await readFile(join(folder, 'web.pem'), 'utf8')
  t.equal(chain.match(/BEGIN CERTIFICATE/g)?.length, 2)
  t.equal(await type('curl'), 'web.pem: OK\n')
  t.equal(await readFile(join(folder, 'web.pem'), 'utf8'), chain, 'the same key, the same certificate')
  t.match(await type('explain'), /This request would be issued\./)
  t.ok((await readdir(folder)).includes('data'), 'data lies in the working directory')
})

t.test('every page that a page links to is there', async (t) => {
  const pages = ['README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md']
  for (const name of await readdir(join(root, 'docs'))) if (name.endsWith('.md')) pages.push(`docs/${name}`)
  for (const page of pages) {
    const text = await readFile(join(root, page), 'utf8')
    for (const [, target = ''] of text.matchAll(/\]\((?!https?:|#)([^)#]+)[^)]*\)/g))
      t.ok(existsSync(join(root, page, '..', target)), `${page} links to ${target}`)
  }
})

t.test('every section that a page links to is there', async (t) => {
  const names = (await readdir(join(root, 'docs'))).filter((name) => name.endsWith('.md'))
  for (const page of ['README.md', 'CHANGELOG.md', ...names.map((name) => `docs/${name}`)]) {
    const text = await readFile(join(root, page), 'utf8')
    for (const [, target = '', section = ''] of text.matchAll(/\]\(((?:[\w./-]+\.md)?)#([^)]+)\)/g)) {
      const linked = target === '' ? text : await readFile(join(root, page, '..', target), 'utf8')
      const headings = linked.replaceAll(/^```[\s\S]*?^```$/gm, '').matchAll(/^#+ (.+)$/gm)
      const sections = [...headings].map(([, heading = '']) => anchorOf(heading))
      t.ok(sections.includes(section), `${page} links to ${target}#${section}`)
    }
  }
})

/** As GitHub makes it of a heading. */
const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-')
