/**
 * Runs tests, each file in a Node of its own, and tells in TAP how they went: `node tools/tests.ts [files or folders]`, or all:
 * by itself without those that take long (test/helpers/slow.ts), with `--all` each of them. On a terminal only what failed is
 * told in full. Ends with 1 if anything failed.
 *
 * tap's own runner puts hooks into every Node below it, into services under test as well, with which each loads its
 * modules in twice the time and more: a quarter of all that the suite took.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { chmod, glob, lstat, mkdir, stat } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'

import { setApart } from '../test/helpers/apart.ts'

const home = join(import.meta.dirname, '..')

const main = async (args: readonly string[]): Promise<void> => {
  const named = args.filter((arg) => arg !== '--all')
  if (args.length === 0) process.env['SLOW_TESTS'] = 'no'
  const files = named.length === 0 ? await filesIn(join(home, 'test')) : (await Promise.all(named.map(filesOf))).flat()
  write(`TAP version 14\n1..${files.length}`)
  await useScratch()
  const running = openRunning()
  const next = openQueue(files)
  const sum = { ...nothing }
  let slow = 0
  let number = 0
  const lane = async (waits: boolean): Promise<void> => {
    for (let file = next(waits); file !== undefined && !running.stopping; file = next(waits)) {
      const outcome = await run(file, running)
      number += 1
      tell(number, file, outcome)
      for (const name of names) sum[name] += outcome.counts[name]
      slow += outcome.output.split('# SKIP a slow test: ').length - 1
    }
  }
  // One more than there are processors, since what works waits for the database now and then: a ninth of two was idle.
  await Promise.all([lane(true), ...Array.from({ length: availableParallelism() + 1 }, () => lane(false))])
  // Stops the server that they share.
  await import('../test/helpers/after.ts')
  if (slow > 0) write(`# slow tests left out: ${slow} (npm test -- --all runs them too)`)
  const shown = names.filter((name) => ['total', 'pass'].includes(name) || sum[name] > 0)
  write(`# { ${shown.map((name) => `${name}: ${sum[name]}`).join(', ')} }\n# time=${Math.round(performance.now())}ms`)
  process.exitCode = sum.fail > 0 || running.stopping ? 1 : 0
}

/**
 * What tests write lies in folders that are apart from each other, a third of what some took (`setApart`). One folder for
 * all runs, open to the accounts that tests take on as `/tmp` is; where somebody else has made it, it is done without.
 */
const useScratch = async (): Promise<void> => {
  const folder = join(tmpdir(), `chancery-tests-${process.getuid?.() ?? 0}`)
  await mkdir(folder).catch(() => {})
  const found = await lstat(folder).catch(() => undefined)
  if (!found?.isDirectory() || found.uid !== process.getuid?.()) return
  await chmod(folder, 0o1777)
  await setApart(folder)
  process.env['TMPDIR'] = folder
}

const filesOf = async (name: string): Promise<readonly string[]> => {
  const path = resolve(name)
  const found = await stat(path).catch(() => undefined)
  if (found === undefined) throw new Error(`There is no ${name}.`)
  return found.isDirectory() ? filesIn(path) : [path]
}

const filesIn = async (folder: string): Promise<readonly string[]> => {
  const found: string[] = []
  for await (const file of glob(join(folder, '**/*.test.ts'))) found.push(file)
  return found.sort()
}

/** One lane takes what mostly waits first, the others what works: so no processor idles, and what waits is not crowded. */
const openQueue = (files: readonly string[]) => {
  const waiting = files.filter((file) => mostlyWaits.test(relative(home, file)))
  const working = files.filter((file) => !waiting.includes(file))
  return (waits: boolean): string | undefined =>
    waits ? (waiting.shift() ?? working.shift()) : (working.shift() ?? waiting.shift())
}

/** For modules that hang, for processes to come up, for seconds to pass. */
const mostlyWaits = /^test\/(hsm|crash|rotation|commands\/bootstrap)\b/

/** Those under way. A signal ends them, and nothing else is begun. */
const openRunning = () => {
  const running = { stopping: false, children: new Set<ChildProcess>() }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => {
      running.stopping = true
      for (const child of running.children) child.kill(signal)
    })
  return running
}

interface Outcome {
  readonly output: string
  readonly counts: Counts
  readonly ms: number
}

const run = (file: string, { children }: { readonly children: Set<ChildProcess> }): Promise<Outcome> =>
  new Promise((settle) => {
    const started = performance.now()
    const env = { ...process.env, TAP_TIMEOUT: String(patience) }
    const child = spawn(process.execPath, [file], { cwd: home, env, stdio: ['ignore', 'pipe', 'pipe'] })
    children.add(child)
    const chunks: string[] = []
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => chunks.push(text))
    // It ends itself before, and says where it hung, unless it hangs for good.
    const timer = setTimeout(() => child.kill('SIGKILL'), patience * 1050)
    child.once('close', (code, signal) => {
      clearTimeout(timer)
      children.delete(child)
      const output = chunks.join('')
      settle({ output, counts: countsOf(output, signal ?? code), ms: Math.round(performance.now() - started) })
    })
  })

const names = ['total', 'pass', 'fail', 'skip'] as const
type Counts = Record<(typeof names)[number], number>
const nothing: Counts = { total: 0, pass: 0, fail: 0, skip: 0 }

/** By the last line of tap; but whoever says nothing, or ends badly, has failed. */
const countsOf = (output: string, end: string | number | null): Counts => {
  const said = output.match(/^# \{ total: .*\}$/gm)?.at(-1)
  const counts = { ...nothing }
  for (const name of names) counts[name] = Number(new RegExp(`\\b${name}: (\\d+)`).exec(said ?? '')?.[1] ?? 0)
  if ((said !== undefined && end === 0) || counts.fail > 0) return counts
  return { ...counts, total: counts.total + 1, fail: 1 }
}

const tell = (number: number, file: string, { output, counts: { fail }, ms }: Outcome): void => {
  const name = relative(home, file)
  if (fail > 0 || !process.stdout.isTTY) write(`# Subtest: ${name}\n${output.trimEnd().replace(/^(?=.)/gm, '    ')}`)
  write(`${fail > 0 ? 'not ok' : 'ok'} ${number} - ${name} # time=${ms}ms`)
}

const write = (text: string): void => void process.stdout.write(`${text}\n`)

/** Seconds: tap's own 30 are too few for a machine that is busy. */
const patience = Number(process.env['TAP_TIMEOUT'] ?? 600)

await main(process.argv.slice(2))
