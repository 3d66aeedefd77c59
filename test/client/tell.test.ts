/** The command that is run when files are new, as the real processes that it starts. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'

import t, { type Test } from 'tap'

import { tellBy } from '../../src/client/issue/hook.ts'
import { slowTest } from '../helpers/slow.ts'
import { newFolder } from './folders.ts'

/** The word that it has written there, once it has. */
const wordOf = async (path: string): Promise<number> => {
  for (;;) {
    const text = await readFile(path, 'utf8').catch(() => '')
    if (text.endsWith('\n')) return Number(text)
    await wait(20)
  }
}

/** Neither gone nor only left to be reaped. */
const isRunning = async (pid: number): Promise<boolean> => {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  return stat !== undefined && !/\) [ZX] /.test(stat)
}

const untilEnded = async (pid: number): Promise<void> => {
  while (await isRunning(pid)) await wait(20)
}

const endLater = (t: Test, pid: number): void =>
  t.teardown(async () => {
    if (await isRunning(pid)) process.kill(pid, 'SIGKILL')
  })

t.test('what it leaves running is not waited for, though it holds the output, and goes on', async (t) => {
  const file = join(await newFolder(t), 'pid')
  const script = `echo begun; sleep 100 & echo $! > ${file}`
  t.equal(await tellBy(['/bin/sh', '-c', script], undefined), undefined)
  const pid = await wordOf(file)
  endLater(t, pid)
  t.ok(await isRunning(pid))
  const failed = await tellBy(['/bin/sh', '-c', `sleep 100 & echo $! > ${file}.2; echo oh no; exit 3`], undefined)
  endLater(t, await wordOf(`${file}.2`))
  t.match(failed?.message, /ended with 3: oh no\n/, 'and what it said is told all the same')
})

slowTest('one that does not end is ended with all that it has started, whatever they do against it', async (t) => {
  const file = join(await newFolder(t), 'pid')
  const ending = new AbortController()
  const told = tellBy(['/bin/sh', '-c', `trap '' TERM; sleep 100 & echo $! > ${file}; wait`], ending.signal)
  const pid = await wordOf(file)
  endLater(t, pid)
  ending.abort()
  t.match(await told, { kind: 'later', message: /was ended by SIGKILL/ })
  await untilEnded(pid)
})

slowTest('nor does one go on that takes too long', async (t) => {
  const file = join(await newFolder(t), 'pid')
  const told = await tellBy(['/bin/sh', '-c', `sleep 100 & echo $! > ${file}; wait`], undefined, 2_000)
  t.match(told, { kind: 'later', message: /was ended by SIGTERM/ })
  await untilEnded(await wordOf(file))
})

slowTest('one that cannot be ended, as under sudo, is left alone in the end', async (t) => {
  const file = join(await newFolder(t), 'pid')
  const kill = process.kill.bind(process)
  const tried: (readonly [number, string])[] = []
  t.intercept(process, 'kill', {
    value: (pid: number, signal: NodeJS.Signals) => {
      if (pid >= 0) return kill(pid, signal)
      tried.push([pid, signal])
      throw Object.assign(new Error('kill EPERM'), { code: 'EPERM', syscall: 'kill' })
    },
  })
  const ending = new AbortController()
  const told = tellBy(['/bin/sh', '-c', `echo $$ > ${file}; exec sleep 100`], ending.signal)
  const pid = await wordOf(file)
  endLater(t, pid)
  ending.abort()
  t.match(await told, { kind: 'later', problem: { detail: /goes on: it cannot be ended/ } })
  const ours = tried.filter(([group]) => group === -pid).map(([, signal]) => signal)
  t.same(ours, ['SIGTERM', 'SIGKILL'])
  t.ok(await isRunning(pid))
})

t.test('a letter that it has written in two pieces is told as one', async () => {
  const failed = await tellBy(
    ['/bin/sh', '-c', "printf 'f\\303'; sleep 0.3; printf '\\274r nichts'; exit 1"],
    undefined,
  )
  t.match(failed?.message, /ended with 1: für nichts\n/)
})
