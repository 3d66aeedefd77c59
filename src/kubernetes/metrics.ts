/** What the controller measures, in one table, on a registry that is passed in. docs/controller.md names each. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client'

type Kind = 'counter' | 'gauge' | 'histogram'

interface Definition {
  readonly kind: Kind
  readonly help: string
  readonly labels: readonly string[]
}

export const controllerMetrics = {
  chancery_controller_leader: { kind: 'gauge', help: '1 where this instance has the lease, and so works.', labels: [] },
  chancery_controller_ended_total: {
    kind: 'counter',
    help: 'Objects that came to an end, by their kind and by which: issued, failed, denied or approved.',
    labels: ['resource', 'outcome'],
  },
  chancery_controller_asks_seconds: {
    kind: 'histogram',
    help: 'What Chancery was asked for a certificate, by what it answered: issued, waiting, later or refused.',
    labels: ['outcome'],
  },
  chancery_controller_writes_total: {
    kind: 'counter',
    help: 'Writes of a status, by how they went: written, gone (deleted meanwhile), superseded, full (the object is larger than etcd takes) or failed.',
    labels: ['resource', 'outcome'],
  },
  chancery_controller_queue: {
    kind: 'gauge',
    help: 'Objects that wait for their turn (ready), after a setback for a later try (later), or for people of the cluster to mend what is theirs (left): an issuer of a namespace, a limit that its own token has used up, one that does not exist, a request of a kubelet that is not approved, one of a pod that is left open, one that is too large for any status, a Certificate that is renewed as soon as it is issued.',
    labels: ['resource', 'state'],
  },
  chancery_controller_objects: { kind: 'gauge', help: 'Objects that are watched.', labels: ['resource'] },
  chancery_controller_watch_stale_seconds: {
    kind: 'gauge',
    help: 'For how long it is not known what has happened to the objects: 0 while their watch is open, since the start where they have not been listed yet.',
    labels: ['resource'],
  },
  chancery_controller_watch_restarts_total: {
    kind: 'counter',
    help: 'Watches that ended otherwise than by their time: expired, broken or failed.',
    labels: ['resource', 'reason'],
  },
  chancery_controller_events_dropped_total: {
    kind: 'counter',
    help: 'Events that were not written because too many waited, or too many were new.',
    labels: [],
  },
} as const satisfies Readonly<Record<string, Definition>>

type Table = typeof controllerMetrics
export type MetricName = keyof Table
type Named<K extends Kind> = { [Name in MetricName]: Table[Name]['kind'] extends K ? Name : never }[MetricName]
type Labels<Name extends MetricName> = Readonly<Record<Table[Name]['labels'][number], string>>

export interface Meter {
  count<Name extends Named<'counter'>>(name: Name, labels: Labels<Name>): void
  time<Name extends Named<'histogram'>>(name: Name, labels: Labels<Name>, seconds: number): void
  /** Looked up when somebody asks, by whoever has said so last. */
  watch<Name extends Named<'gauge'>>(name: Name, labels: Labels<Name>, read: () => number): void
}

export const openMeter = (registry: Registry): Meter => {
  const counters = new Map<string, Counter>()
  const histograms = new Map<string, Histogram>()
  const reads = new Map<string, Map<string, Reading>>()
  for (const [name, { kind, help, labels }] of Object.entries(controllerMetrics)) {
    const about = { name, help, labelNames: [...labels], registers: [registry] }
    if (kind === 'counter') counters.set(name, new Counter(about))
    else if (kind === 'histogram') histograms.set(name, new Histogram({ ...about, buckets: [...buckets] }))
    else {
      const watched = new Map<string, Reading>()
      reads.set(name, watched)
      new Gauge({
        ...about,
        collect() {
          for (const { labels, read } of watched.values()) this.set(labels, read())
        },
      })
    }
  }
  return {
    count: (name, labels) => counters.get(name)?.inc(labels),
    time: (name, labels, seconds) => histograms.get(name)?.observe(labels, seconds),
    watch: (name, labels, read) => void reads.get(name)?.set(JSON.stringify(labels), { labels, read }),
  }
}

interface Reading {
  readonly labels: Readonly<Record<string, string>>
  readonly read: () => number
}

const buckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10] as const
