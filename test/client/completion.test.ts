/** Completion as people have it: the script is sourced by a real shell at a real terminal, and Tab is pressed. */
import { execFile, spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t, { type Test } from 'tap'

import { exitCodes } from '../../src/lib/failure.ts'
import { bare } from '../helpers/environment.ts'
import { mainFile } from '../helpers/run.ts'
import { assertTools } from '../interop/tools.ts'
import { newFolder } from './folders.ts'

t.setTimeout(300_000)
await assertTools('zsh', 'fish')
const run = promisify(execFile)
const shells = ['bash', 'zsh', 'fish'] as const

/** What is typed, with `→` for Tab, and the words that the command then gets. */
const typed: readonly (readonly [line: string, words: string])[] = [
  ['chancery expl→', 'explain'],
  ['chancery cert→sea→--expires-b→', 'certificate search --expires-before'],
  ['chancery issue --prof→server --dae→', 'issue --profile server --daemon'],
  ['chancery issue --name certificate --ren→30%', 'issue --name certificate --renew-before 30%'],
  ['chancery profile apply only-→', 'profile apply only-here.yaml'],
  ['chancery issue --csr only-→--out x', 'issue --csr only-here.yaml --out x'],
  ['chancery issue-→only-→--out x', 'issue-many only-here.yaml --out x'],
  ['chancery profile diff wi→', 'profile diff with space.yaml'],
  ['chancery cere→crl only-→', 'ceremony crl only-here.yaml'],
  ['chancery roll verify --key only-→', 'roll verify --key only-here.yaml'],
  ['chancery context rem→old', 'context remove old'],
  ['chancery completion z→', 'completion zsh'],
]

/**
 * Types each line at a shell whose `chancery` shows its arguments, at a terminal of zsh's: one line at a time, so that
 * nothing is typed into the answer of the one before.
 */
const typeInto = async (t: Test, shell: (typeof shells)[number]): Promise<readonly string[]> => {
  const folder = await newFolder(t)
  const { stdout: script } = await run(process.execPath, [mainFile, 'completion', shell], { env: bare })
  await writeFile(join(folder, 'script'), script)
  for (const name of ['only-here.yaml', 'with space.yaml']) await writeFile(join(folder, name), '')
  const start = { bash: 'bash --norc --noprofile -i', zsh: 'zsh -f -i', fish: 'fish --no-config -i' }[shell]
  const say = {
    bash: `PS1=; ${showing}`,
    zsh: `PS1=; autoload -Uz compinit; compinit -u -D; unsetopt zle_bracketed_paste; ${showing}`,
    fish: `function fish_prompt; end; function chancery; printf 'RA%s:%s:END\\n' N "$argv"; end`,
  }[shell]
  const lines = typed.map(([line]) => `say ${quote(line.replaceAll('→', '\t'))}`)
  await writeFile(
    join(folder, 'driver'),
    `zmodload zsh/zpty
say() { zpty -w terminal "$1"; local text; zpty -r -m terminal text '*RAN*END*'; print -r -- "$text" }
zpty terminal ${start}
say ${quote(`${say}; source ./script; chancery ready`)}
${lines.join('\n')}
zpty -d terminal
`,
  )
  // A bash that has a history writes it when its terminal ends, into a folder that is being taken away.
  const env = { ...bare, HOME: folder, TERM: 'dumb', LC_ALL: 'C', INPUTRC: '/dev/null', HISTFILE: '' }
  const child = spawn('zsh', ['-f', 'driver'], { cwd: folder, env, stdio: ['ignore', 'pipe', 'pipe'] })
  t.teardown(() => void child.kill('SIGKILL'))
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      said += chunk
    })
  await new Promise((resolve) => child.once('close', resolve))
  const ran = [...said.matchAll(/RAN:(.*?) ?:END/g)].map(([, words = '']) => words)
  if (ran.length !== typed.length + 1) t.comment(said)
  return ran.slice(1)
}

const showing = `chancery() { printf 'RA%s:%s:END\\n' N "$*"; }`

const quote = (text: string): string =>
  `$'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'").replaceAll('\t', '\\t')}'`

for (const shell of shells) {
  t.test(`Tab completes verbs, options and files in ${shell}`, async (t) => {
    t.same(
      await typeInto(t, shell),
      typed.map(([, words]) => words),
    )
  })
}

t.test('another shell is told which there are', async (t) => {
  const error = await run(process.execPath, [mainFile, 'completion', 'tcsh'], { env: bare }).catch((error) => error)
  t.equal(error.code, exitCodes.usage)
  t.match(error.stderr, /Allowed choices are bash, zsh, fish/)
})
