/** What is read of a benchmark that was kept is what its report says. */
import { execFile } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'

const run = promisify(execFile)
const bench = join(import.meta.dirname, '../../bench')

t.test('the history has each comparison that was kept, with the ratios of its report', async (t) => {
  const { stdout } = await run(process.execPath, [join(bench, 'main.ts'), 'history'])
  const reports = (await readdir(join(bench, 'results'))).filter((name) => /^[\d-]{15}\.md$/.test(name)).sort()
  let compared = 0
  for (const name of reports) {
    const report = await readFile(join(bench, 'results', name), 'utf8')
    const [recording, nothing] = ['recording', 'recording nothing'].map((peer) => bestAgainst(report, peer))
    if (recording === undefined || nothing === undefined) continue
    const line = stdout.split('\n').find((row) => row.startsWith(`| ${name.slice(0, -3)} `)) ?? ''
    t.match(line, new RegExp(`\\| +${recording} × \\| +${nothing} × \\|`), name)
    compared += 1
  }
  t.ok(compared > 40)
  t.match(stdout, new RegExp(`\\nOf ${compared} runs, 4 × cfssl recording holds in \\d+, `))
})

/** What stands before the bound: the first reports have no column of the same number of clients. */
const bestAgainst = (report: string, peer: string): string | undefined =>
  new RegExp(
    `^\\| issuance against cfssl, ${peer} +\\|(?:[^|]+\\|)? +(\\d\\.\\d\\d) × \\| +(?:4|0\\.5) × \\|`,
    'm',
  ).exec(report)?.[1]
