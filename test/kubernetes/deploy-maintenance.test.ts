/** The component `maintenance`: pods that wait instead of serving. What is done in them is typed in deploy-docs.test.ts. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import t from 'tap'

import { type Json, type Manifest, manifests, render, renderWith } from './manifests.ts'

const setIn = (objects: readonly Manifest[]): Json => objects.find(({ kind }) => kind === 'StatefulSet')?.['spec']

const places = ['overlays/mounted-keys', 'overlays/pkcs11']
const both = await Promise.all(
  places.map(async (place) => {
    const [serves, waits] = await Promise.all([render(join(manifests, place)), renderWith(place, ['maintenance'])])
    return { place, serves: setIn(serves), waits: setIn(waits) }
  }),
)

t.test('the pods have all that the service has, and nothing that would end them', (t) => {
  for (const { place, serves, waits } of both) {
    const [container] = serves.template.spec.containers
    const { args, startupProbe, livenessProbe, readinessProbe, lifecycle, ...kept } = container
    t.ok(args && startupProbe && livenessProbe && readinessProbe && lifecycle, place)
    const [{ command, ...waiting }] = waits.template.spec.containers
    t.strictSame(waiting, kept, place)
    const { template } = serves
    const spec = { ...template.spec, containers: waits.template.spec.containers }
    t.strictSame(waits, { ...serves, template: { ...template, spec } }, place)
    t.equal(template.metadata.labels['app.kubernetes.io/component'], 'server', 'by which the page has them deleted')
  }
  t.end()
})

t.test('they end when they are told to, as a process 1 does of itself only', async (t) => {
  const [program, ...args] = both[0]?.waits.template.spec.containers[0].command ?? []
  /** What ended it: nothing but itself, where it had come so far. */
  const tell = async (afterMs: number): Promise<NodeJS.Signals | null> => {
    const child = spawn(program, args, { detached: true, stdio: 'ignore' })
    const ended = once(child, 'exit')
    await sleep(afterMs)
    child.kill('SIGTERM')
    const [, signal] = await ended
    try {
      // In a container all end with the first.
      process.kill(-Number(child.pid), 'SIGKILL')
    } catch {
      // It had none yet.
    }
    return signal
  }
  let signal: NodeJS.Signals | null = 'SIGTERM'
  for (const afterMs of [50, 500, 5_000]) if (signal) signal = await tell(afterMs)
  t.equal(signal, null)
})
