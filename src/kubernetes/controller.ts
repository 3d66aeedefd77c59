/**
 * The controller, put together: every instance watches, so that another one can go on at once; only the one that has the lease
 * works. Nothing is kept between two runs: what was asked for before is found again at Chancery, under the object's uid.
 */
import type { Registry } from 'prom-client'

import type { Log } from '../log.ts'
import type { KubernetesApi } from './api/client.ts'
import { type LeaseTimes, openLease } from './api/lease.ts'
import { openRecorder } from './api/recorder.ts'
import type { ReadRequest } from './decide/asking.ts'
import { openHealth } from './health.ts'
import { openMeter } from './metrics.ts'
import { openAsker } from './reconcile/asker.ts'
import { openPlaces } from './reconcile/endpoints.ts'
import { openWatches } from './reconcile/watches.ts'
import { openWork, type Work } from './reconcile/work.ts'
import type { ControllerSettings } from './settings.ts'

export interface ControllerDeps {
  readonly settings: ControllerSettings
  readonly api: KubernetesApi
  readonly registry: Registry
  readonly readRequest: ReadRequest
  readonly isToken: (text: string) => boolean
  readonly log: Log
  /** Of this process, and of no other that there ever was. */
  readonly identity: string
  readonly clock: () => Date
  /** Milliseconds that only go forward. */
  readonly now: () => number
  readonly random: () => number
  readonly times?: ControllerTimes
}

/** Milliseconds, but for the seconds that a watch lasts. */
export interface ControllerTimes {
  readonly lease: LeaseTimes
  /** After one setback, and at most. */
  readonly firstMs: number
  readonly mostMs: number
  readonly watchSeconds: number
  readonly resyncMs?: number
}

export interface Controller {
  /** Of probes and metrics. */
  readonly url: string
  /** Whether this instance works. */
  readonly leads: boolean
  /** Whether it could. */
  readonly ready: boolean
  /** Ends what was begun, within five seconds, and gives the lease back. */
  close(): Promise<void>
}

/** Rejects where nothing can be listened on, and leaves nothing open. */
export const openController = async (deps: ControllerDeps): Promise<Controller> => {
  const { settings, api, log, clock, now, random, identity, times } = deps
  const meter = openMeter(deps.registry)
  const dropped = (): void => meter.count('chancery_controller_events_dropped_total', {})
  const recorder = openRecorder({ api, instance: identity, log, clock, dropped })
  const places = openPlaces({
    ...{ api, now, isToken: deps.isToken, servers: settings.servers, secretNamespace: settings.secretNamespace },
  })
  const asker = openAsker({ places, meter, now })
  let work: Work | undefined
  const watches = openWatches(
    { api, settings, meter, log, random, now, times },
    {
      issuer: (name, why) => work?.issuer(name, why),
      throughIssuer: (name, why) => work?.throughIssuer(name, why),
      request: (key, why) => work?.request(key, why),
      signingRequest: (key, why) => work?.signingRequest(key, why),
      podRequest: (key, why) => work?.podRequest(key, why),
      node: (name) => work?.node(name),
    },
  )
  const health = await openHealth({
    listen: settings.listen,
    registry: deps.registry,
    missing: watches.unready,
  }).catch(async (error: unknown) => {
    await watches.close()
    throw error
  })
  const lease = openLease(
    {
      ...{ api, log, identity, random, now, namespace: settings.namespace, name: settings.lease, wallClock: clock },
      ...(times && { times: times.lease }),
    },
    {
      lead: (lost) => {
        const { readRequest } = deps
        const begun = openWork({
          ...{ api, settings, watches, asker, recorder, meter, readRequest, log, clock, now, random, patience: times },
          ...{ lost, isHeld: () => lease.held },
        })
        work = begun
        return {
          stop: async () => {
            work = undefined
            await begun.stop()
          },
        }
      },
    },
  )
  meter.watch('chancery_controller_leader', {}, () => (lease.held ? 1 : 0))
  return {
    url: health.url,
    get leads() {
      return lease.held
    },
    get ready() {
      return watches.unready().length === 0
    },
    close: async () => {
      await lease.close()
      await watches.close()
      await recorder.close()
      await health.close()
      api.close()
    },
  }
}
