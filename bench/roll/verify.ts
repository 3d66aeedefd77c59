/**
 * What an auditor's commands take, over a roll of real certificates that a service has issued: each a process of its own,
 * as somebody would type it, from its start to its end.
 */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { type Generator, shoot } from '../load/load.ts'
import { countBy, type Place } from '../place.ts'
import { call } from '../request.ts'
import { openChancery } from '../targets/chancery.ts'
import type { SampleRequest, Target } from '../targets/target.ts'

export interface VerifyRow {
  readonly title: string
  readonly entries: number
  readonly seconds: number
  /** Of all of its threads. */
  readonly processorSeconds: number
  /** MiB, the highest. */
  readonly memory: number
}

interface Plan {
  readonly place: Place
  readonly sample: SampleRequest
  readonly generator: Generator
  readonly certificates: number
  readonly tell: (line: string) => void
}

export const measureVerify = async ({ place, sample, generator, certificates, tell }: Plan): Promise<VerifyRow[]> => {
  const target = await openChancery({ place, sample, name: 'verified' })
  try {
    await fill(target, { place, generator, certificates, tell })
    const commands = await commandsOf(target, place.folder)
    const entries = await countBy(target.database?.ownerUrl ?? '', 'select size from roll')
    const rows: VerifyRow[] = []
    for (const [title, args] of commands.lines) {
      const ran = await run(args, commands.env)
      tell(`${title}: ${Math.round(entries / ran.seconds)} entries/s`)
      rows.push({ title, entries, ...ran })
    }
    return rows
  } finally {
    await target.close()
  }
}

/** By the load of the other benchmarks, until there are so many. */
const fill = async (target: Target, { place, generator, certificates, tell }: Omit<Plan, 'sample'>): Promise<void> => {
  const { url, headers, body } = target
  for (;;) {
    const recorded = (await target.recorded?.()) ?? 0
    tell(`${recorded} certificates`)
    if (recorded >= certificates) return
    await shoot(generator, place.folder, { url, method: 'POST', headers, body, clients: 32, seconds: 10 })
  }
}

const commandsOf = async (target: Target, folder: string) => {
  const { ca, headers, url, publicUrl = '', database } = target
  const at = (name: string): string => join(folder, name)
  const origin = new URL(url).origin
  const { authorization = '' } = headers
  const { text } = await call({ url: `${origin}/v1/events?type=roll.opened`, ca, headers: { authorization } })
  await writeFile(at('roll.key'), JSON.parse(JSON.parse(text).items[0].entry).key)
  await writeFile(at('roll.ca'), ca)
  await writeFile(at('roll.token'), authorization.slice('Bearer '.length), { mode: 0o600 })
  const key = ['--key', at('roll.key')]
  const exported = ['--from', at('exported')]
  return {
    env: { CHANCERY_URL: origin, CHANCERY_CACERT: at('roll.ca'), CHANCERY_TOKEN_FILE: at('roll.token'), publicUrl },
    lines: [
      ['export over HTTPS into a folder', ['export', '--out', at('exported'), ...key]],
      ['verify the folder', ['verify', ...exported, ...key]],
      ['verify over HTTPS', ['verify', ...key]],
      ['verify the records', ['verify', '--database', database?.ownerUrl ?? '']],
      ['search the folder for a name', ['search', '--name', '*.example.com.invalid', ...exported, ...key]],
    ] as const,
  }
}

const run = (
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<Omit<VerifyRow, 'title' | 'entries'>> =>
  new Promise((resolve, reject) => {
    const began = performance.now()
    const child = spawn(process.execPath, [mainFile, 'roll', ...args], {
      env: { PATH: process.env['PATH'] ?? '', ...env },
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    let said = ''
    child.stderr.on('data', (chunk) => {
      said += chunk
    })
    let seen = { processorSeconds: 0, memory: 0 }
    const watching = setInterval(() => {
      seen = readUse(child.pid ?? -1) ?? seen
    }, 20)
    child.on('error', reject)
    child.on('exit', (code) => {
      clearInterval(watching)
      if (code === 0) resolve({ seconds: (performance.now() - began) / 1_000, ...seen })
      else reject(new Error(`chancery roll ${args[0]} ends with ${code}: ${said.slice(-500)}`))
    })
  })

/** Linux only; the last look before its end is 20 ms old at most. */
const readUse = (pid: number): { processorSeconds: number; memory: number } | undefined => {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /, '')
      .split(' ')
    const highest = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
    return highest === undefined
      ? undefined
      : { processorSeconds: (Number(fields[11]) + Number(fields[12])) / ticks, memory: Number(highest) / 1_024 }
  } catch {
    return undefined
  }
}

const ticks = 100
const mainFile = join(import.meta.dirname, '../../src/main.ts')
