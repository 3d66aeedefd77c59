/** Events of events.k8s.io/v1, which are core v1 events under other names, and leases: both keep times in microseconds. */
import { type Cause, invalidValue, quote, required } from './refusal.ts'
import { type Decoded, isNew, Malformed, type Resource, resourceOf } from './resource.ts'
import { objectShape, whole } from './shape.ts'
import { at, namespaceOf, same, type Tree, textAt, treeAt, type Value, withoutEmpty } from './values.ts'

export const leases: Resource = resourceOf(
  {
    group: 'coordination.k8s.io',
    version: 'v1',
    plural: 'leases',
    kind: 'Lease',
    namespaced: true,
    shape: objectShape(),
  },
  {
    decode: (object): Decoded => {
      for (const name of ['acquireTime', 'renewTime'])
        checkMicroTime(at(object, 'spec', name), `LeaseSpec.spec.${name}`)
      return { object: { ...object, spec: treeAt(object, 'spec') }, unknown: [] }
    },
    validate: (next): Cause[] => {
      const seconds = at(next, 'spec', 'leaseDurationSeconds')
      return typeof seconds === 'number' && seconds <= 0
        ? [invalidValue('spec.leaseDurationSeconds', String(seconds), 'must be greater than 0')]
        : []
    },
  },
)

export const events: Resource = resourceOf(
  {
    group: 'events.k8s.io',
    version: 'v1',
    plural: 'events',
    kind: 'Event',
    namespaced: true,
    shortNames: ['ev'],
    shape: objectShape({ regarding: whole, related: whole }),
    selectable: ['reason', 'regarding.kind', 'regarding.name', 'regarding.namespace', 'regarding.uid', 'type'],
    // Its validation is that of the core kind, and speaks of that one's fields.
    invalidAs: { group: '', kind: 'Event' },
  },
  {
    decode: (object): Decoded => {
      checkMicroTime(object['eventTime'], 'Event.eventTime')
      checkMicroTime(at(object, 'series', 'lastObservedTime'), 'EventSeries.series.lastObservedTime')
      return { object: normalForm(object), unknown: [] }
    },
    validate: (next, live) =>
      isNew(live) ? validateNew(next) : [...validateSeries(next), ...validateChange(next, live)],
  },
)

const reading = ['get', 'list', 'watch']

/** Events as most readers still get them; here they are written as events of events.k8s.io alone. */
export const coreEvents: Resource = resourceOf(
  { group: '', version: 'v1', plural: 'events', kind: 'Event', namespaced: true, shortNames: ['ev'], verbs: reading },
  {
    show: ({ kind: _, apiVersion: __, ...stored }) => {
      const shown: Tree = { kind: 'Event', apiVersion: 'v1' }
      for (const [name, value] of Object.entries(stored)) shown[coreNames[name] ?? name] = value
      return shown
    },
  },
)

const coreNames: Readonly<Record<string, string>> = {
  regarding: 'involvedObject',
  note: 'message',
  reportingController: 'reportingComponent',
  deprecatedSource: 'source',
  deprecatedFirstTimestamp: 'firstTimestamp',
  deprecatedLastTimestamp: 'lastTimestamp',
}

const normalForm = (object: Tree): Tree => {
  const { metadata, eventTime = null, regarding, ...rest } = object
  return {
    metadata: treeAt(metadata),
    ...withoutEmpty(rest),
    eventTime,
    regarding: withoutEmpty(treeAt(regarding)),
    deprecatedSource: treeAt(rest, 'deprecatedSource'),
    deprecatedFirstTimestamp: rest['deprecatedFirstTimestamp'] ?? null,
    deprecatedLastTimestamp: rest['deprecatedLastTimestamp'] ?? null,
  }
}

/** RFC 3339 with exactly six digits of fraction, and the words of Go's decoder for what is not. */
export const checkMicroTime = (value: Value | undefined, struct: string): void => {
  if (value === undefined || value === null) return
  if (typeof value !== 'string') {
    const type = typeof value === 'number' ? 'number' : typeof value
    throw new Malformed(`json: cannot unmarshal ${type} into Go struct field ${struct} of type string`)
  }
  const [, rest = value] = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(.*)$/.exec(value) ?? []
  if (/^\.\d{6}(Z|[+-]\d\d:\d\d)$/.test(rest)) return
  const part = rest === value ? '2006' : '.000000'
  throw new Malformed(
    `parsing time ${quote(value)} as "2006-01-02T15:04:05.000000Z07:00": cannot parse ${quote(rest)} as ${quote(part)}`,
  )
}

const validateNew = (next: Tree): Cause[] => {
  const regarding = textAt(next, 'regarding', 'namespace')
  const expected = regarding === '' ? 'default' : regarding
  if (namespaceOf(next) !== expected)
    return [invalidValue('involvedObject.namespace', quote(regarding), 'does not match event.namespace')]
  if (next['eventTime'] === null) return [required('eventTime')]
  return [
    ...validateSeries(next),
    ...validateReporter(textAt(next, 'reportingController')),
    ...(textAt(next, 'reportingInstance') === '' ? [required('reportingInstance')] : []),
    ...(textAt(next, 'action') === '' ? [required('action')] : []),
    ...(textAt(next, 'reason') === '' ? [required('reason')] : []),
    ...(Buffer.byteLength(textAt(next, 'note')) > 1024
      ? [invalidValue('message', '""', 'can have at most 1024 characters')]
      : []),
    ...validateName(textAt(next, 'metadata', 'name')),
    ...(['Normal', 'Warning'].includes(textAt(next, 'type'))
      ? []
      : [invalidValue('type', '""', `has invalid value: ${textAt(next, 'type')}`)]),
  ]
}

/** As of all kinds whose names are those of hosts: IsDNS1123Subdomain of apimachinery. */
const validateName = (name: string): Cause[] => {
  const said = [
    ...(name.length > 253 ? ['must be no more than 253 characters'] : []),
    ...(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/.test(name) ? [] : [subdomain]),
  ]
  return said.map((detail) => invalidValue('metadata.name', quote(name), detail))
}

const validateReporter = (reporter: string): Cause[] => {
  const [, name = ''] = reporter.includes('/') ? reporter.split('/') : ['', reporter]
  const field = 'reportingController'
  return [
    ...(reporter === '' ? [required(field)] : []),
    ...(name === '' ? [invalidValue(field, quote(reporter), 'name part must be non-empty')] : []),
    ...(/^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$/.test(name)
      ? []
      : [invalidValue(field, quote(reporter), `name part ${qualifiedName}`)]),
  ]
}

const validateSeries = (next: Tree): Cause[] => {
  const count = at(next, 'series', 'count')
  return typeof count === 'number' && count < 2 ? [invalidValue('series.count', '""', 'should be at least 2')] : []
}

const validateChange = (next: Tree, live: Tree): Cause[] =>
  ['note', 'reason', 'action', 'type', 'eventTime', 'reportingController', 'reportingInstance', 'regarding'].flatMap(
    (name) =>
      same(next[name], live[name])
        ? []
        : [invalidValue(coreNames[name] ?? name, JSON.stringify(next[name] ?? ''), 'field is immutable')],
  )

const subdomain =
  "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
const qualifiedName =
  "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
