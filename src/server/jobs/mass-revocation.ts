/** Carries out what was ordered to be revoked, one slice after the other, and leaves as much room as it takes. */
import type { MassRevocations, SliceEnd } from '../../ca/revocation/mass-revocation.ts'
import type { Log } from '../../log.ts'
import type { Job } from './schedule.ts'

export interface MassRevocationJobDeps {
  readonly revocations: Pick<MassRevocations, 'open' | 'advance'>
  /** Takes or renews the lease for so long; false while another instance has it. */
  readonly lease: (milliseconds: number) => Promise<boolean>
  readonly sleep: (milliseconds: number) => Promise<void>
  readonly isStopping: () => boolean
  readonly log: Log
}

/**
 * One instance at a time, as a courtesy: two would be right, and twice as greedy. Whatever ends it, the next run, here or
 * elsewhere, goes on behind the last slice.
 */
export const massRevocationJob = (deps: MassRevocationJobDeps): Job => ({
  name: 'mass-revocation',
  everyMs: 1_000,
  run: async () => {
    const { revocations, lease, isStopping } = deps
    for (let digest = await revocations.open(); digest !== undefined; digest = await revocations.open()) {
      if (isStopping() || !(await lease(leaseMs))) return
      await carryOut(deps, digest)
    }
  },
})

/** Until there is nothing left of it, we stop, or somebody else has taken over. */
const carryOut = async (deps: MassRevocationJobDeps, digest: string): Promise<void> => {
  const { revocations, lease, sleep, isStopping, log } = deps
  log.info({ event: 'revocations.running', plan: digest }, 'carrying out an order to revoke many')
  let leased = performance.now()
  while (!isStopping()) {
    const began = performance.now()
    if (began - leased > renewMs) {
      if (!(await lease(leaseMs))) return
      leased = began
    }
    const slice: SliceEnd | undefined = await revocations.advance(digest)
    if (slice === undefined || slice.done) {
      log.info({ event: 'revocations.done', plan: digest }, 'an order to revoke many is carried out')
      return
    }
    // As long as issuing had to wait, it has the head for itself.
    await sleep(performance.now() - began)
  }
}

const leaseMs = 5_000
const renewMs = 1_000
