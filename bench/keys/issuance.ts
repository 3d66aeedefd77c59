/** Issuance by where the key is, in turn in one run; and how late the service's event loop turned meanwhile. */
import { pickGenerator } from '../load/load.ts'
import type { Options } from '../options.ts'
import type { Place } from '../place.ts'
import type { Row } from '../report.ts'
import { makeSample } from '../sample.ts'
import { openChancery } from '../targets/chancery.ts'
import type { Target } from '../targets/target.ts'
import { takeTurns } from '../turns.ts'
import { latencyMs, settingsOf, type Tokens } from './tokens.ts'

export interface IssuanceRow extends Row {
  /** Milliseconds, in the round with the worst. */
  readonly loop: { readonly p99: number; readonly max: number }
}

export const measureIssuance = async (
  options: Options,
  place: Place,
  tokens: Tokens,
): Promise<readonly IssuanceRow[]> => {
  const sample = await makeSample(place.folder)
  const targets: Target[] = []
  const delays = new Map<string, LoopReadings>()
  try {
    for (const { name, title, env } of kindsOf(tokens)) {
      const { watched, readings } = watchLoop(await openChancery({ place, sample, name, title, env }))
      targets.push(watched)
      delays.set(name, readings)
    }
    const rows: IssuanceRow[] = []
    for (const clients of options.clients) {
      for (const { clear } of delays.values()) clear()
      const turns = { options: { ...options, clients: [clients] }, place, generator: pickGenerator(options.generator) }
      for (const row of await takeTurns(targets, turns))
        rows.push({ ...row, loop: delays.get(row.target)?.worst() ?? { p99: Number.NaN, max: Number.NaN } })
    }
    return rows
  } finally {
    for (const target of targets) await target.close()
  }
}

/** The first is what the others are compared with. */
const kindsOf = ({ quick, slow }: Tokens) => {
  const development = { CHANCERY_DEVELOPMENT_TOKEN: 'pkcs11:token=ca' }
  return [
    { name: 'chancery', title: 'key in a file, signer process', env: {} },
    { name: 'chancery-inline', title: 'key in a file, in-process', env: { CHANCERY_SIGNER: 'inline' } },
    {
      name: 'chancery-softhsm',
      title: 'key in SoftHSM, signer process',
      env: { ...development, ...settingsOf(quick) },
    },
    {
      name: 'chancery-latency',
      title: `module of ${latencyMs} ms, 32 sessions`,
      env: { ...development, ...settingsOf(slow), CHANCERY_PKCS11_SESSIONS: '32' },
    },
  ] as const
}

interface LoopReadings {
  clear(): void
  worst(): IssuanceRow['loop']
}

/** `measure` reads the metrics before each round and after it, and each reading begins a new span of the delays. */
const watchLoop = (target: Target): { readonly watched: Target; readonly readings: LoopReadings } => {
  let seen: { p99: number; max: number }[] = []
  const metrics = async (): Promise<string> => {
    const text = (await target.metrics?.()) ?? ''
    seen.push({ p99: delayIn(text, '0.99'), max: delayIn(text, '1') })
    return text
  }
  return {
    watched: { ...target, metrics },
    readings: {
      clear: () => {
        seen = []
      },
      worst: () => {
        const after = seen.filter((_, i) => i % 2 === 1)
        return { p99: Math.max(...after.map(({ p99 }) => p99)), max: Math.max(...after.map(({ max }) => max)) }
      },
    },
  }
}

const delayIn = (text: string, quantile: string): number =>
  1_000 *
  Number(new RegExp(`^chancery_event_loop_delay_seconds\\{quantile="${quantile}"\\} (\\S+)$`, 'm').exec(text)?.[1])
