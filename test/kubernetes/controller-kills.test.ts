/** A controller that is killed at each step of a request: another one goes on, and nothing is done twice. */
import { slowUnless } from '../helpers/slow.ts'
import { assertOne, issuerIs, leads, openRunning, type Running, statusWrites, until } from './running.ts'

interface Step {
  /** Resolves when the controller is there. */
  readonly reached: () => Promise<unknown>
  readonly release?: () => void
}

const faulty =
  (kind: 'hang' | 'lose') =>
  ({ cluster }: Running): Step => {
    const fault = cluster.faults.add(kind, { when: { plural: 'certificaterequests', verb: 'patch' }, times: 1 })
    return { reached: () => until(() => fault.used() > 0) }
  }

/** Where the first one is when it is killed, by what the cluster or Chancery makes of its calls. */
const steps: Readonly<Record<string, (running: Running) => Step>> = {
  'before it has looked': () => ({ reached: async () => undefined }),
  'while Chancery signs': ({ front }) => {
    const { held, release } = front.hold()
    return { reached: () => held, release }
  },
  'when Chancery has signed and nothing is written': faulty('hang'),
  'when it is written, and the answer is lost': faulty('lose'),
}

for (const [name, prepare] of Object.entries(steps))
  slowUnless(name === 'while Chancery signs', `a controller is killed ${name}, and another one goes on`, async (t) => {
    const running = await openRunning(t, { dies: true })
    await running.issuer()
    await issuerIs(running, 'True')
    const step = prepare(running)
    await running.ask('web-1')
    await step.reached()
    const killed = running.controllers[0]?.kill()
    step.release?.()
    await killed
    await leads(await running.start())
    await assertOne(t, running, 'web-1')
    t.equal(statusWrites(running).filter(({ changed }) => changed).length, 1)
  })
