/**
 * Limits of addresses, before anybody is known: requests a second, requests under way, failed authentications. They are
 * kept in this process alone, since a flood must not reach the database; each instance takes its share of them. However
 * many addresses come, no more than so many are remembered.
 */
import { type AnyLimitName, limitReached } from '../ca/access/limit-problems.ts'

export interface AddressLimits {
  readonly requestsPerSecond: number
  readonly concurrent: number
  /** At once; one more comes each second. */
  readonly failedAuthentications: number
}

export interface AddressesDeps {
  readonly limits: AddressLimits
  /** How many instances share the limits. */
  readonly replicas: () => number
  /** Milliseconds, of a clock that only goes on. */
  readonly now: () => number
  readonly clock: () => Date
  readonly limited: (name: AnyLimitName) => void
  /** Addresses that are remembered; more than connections there can be. */
  readonly most?: number
}

export interface Addresses {
  /** Throws limit.address_*. What it gives is to be left once. */
  enter(address: string): Entry
  leave(entry: Entry): void
  /**
   * Throws `limit.failed_authentication` where too many have failed, unless these credentials (a digest; asked for only then)
   * were good there before: whoever fails beside them must not shut them out.
   */
  assertTrusted(entry: Entry, credentials: () => string): void
  failed(entry: Entry, credentials: () => string): void
  /** `caller` is the same object for as long as it is remembered: then nothing need be done. */
  succeeded(entry: Entry, caller: object, credentials: () => string): void
  /** How many addresses are remembered. */
  readonly size: number
}

export interface Entry {
  readonly address: string
  underWay: number
  requests: number
  /** When `requests` was counted. */
  at: number
  /** When it was put behind the others. */
  placedAt: number
  failures: number
  failuresAt: number
}

export const openAddresses = ({
  limits,
  replicas,
  now,
  clock,
  limited,
  most = mostAddresses,
}: AddressesDeps): Addresses => {
  const entries = new Map<string, Entry>()
  const good = openGood()
  const noted = new WeakMap<object, string>()

  const share = (limit: number): number => limit / Math.max(1, replicas())
  const capacity = (limit: number): number => Math.max(1, share(limit))

  const refuse = (name: AnyLimitName, value: number, waitMs: number) => {
    limited(name)
    return limitReached(name, { value, waitMs, now: clock() })
  }

  const entryOf = (address: string, present: number): Entry => {
    const found = entries.get(address)
    // Those that come are behind those that stay away; once a second is often enough.
    if (found && present - found.placedAt < secondMs) return found
    if (found) entries.delete(address)
    else if (entries.size >= most) makeRoom(entries, present)
    const { requestsPerSecond, failedAuthentications } = limits
    const entry = found ?? {
      ...{ address, underWay: 0, requests: capacity(requestsPerSecond), at: present },
      ...{ failures: capacity(failedAuthentications), failuresAt: present, placedAt: present },
    }
    entry.placedAt = present
    entries.set(address, entry)
    return entry
  }

  const refillFailures = (entry: Entry): number => {
    const present = now()
    const seconds = (present - entry.failuresAt) / secondMs
    entry.failures = Math.min(capacity(limits.failedAuthentications), entry.failures + share(1) * seconds)
    entry.failuresAt = present
    return entry.failures
  }

  const hasFailed = (entry: Entry): boolean => entry.failures < capacity(limits.failedAuthentications)

  return {
    enter: (address) => {
      const { requestsPerSecond, concurrent } = limits
      const present = now()
      const entry = entryOf(address, present)
      const rate = share(requestsPerSecond)
      entry.requests = Math.min(Math.max(1, rate), entry.requests + ((present - entry.at) / secondMs) * rate)
      entry.at = present
      if (entry.requests < 1)
        throw refuse('addressRequests', requestsPerSecond, ((1 - entry.requests) / rate) * secondMs)
      if (entry.underWay + 1 > capacity(concurrent)) throw refuse('addressConcurrent', concurrent, secondMs)
      entry.requests -= 1
      entry.underWay += 1
      return entry
    },
    leave: (entry) => {
      entry.underWay -= 1
    },
    assertTrusted: (entry, credentials) => {
      if (!hasFailed(entry) || refillFailures(entry) >= 1 || good.has(entry.address, credentials())) return
      throw refuse('failedAuthentication', limits.failedAuthentications, ((1 - entry.failures) / share(1)) * secondMs)
    },
    failed: (entry, credentials) => {
      good.delete(entry.address, credentials())
      refillFailures(entry)
      entry.failures = Math.max(0, entry.failures - 1)
    },
    succeeded: ({ address }, caller, credentials) => {
      if (noted.get(caller) === address) return
      noted.set(caller, address)
      good.add(address, credentials())
    },
    get size() {
      return entries.size
    },
  }
}

/** Credentials that were good, by address: of too many the oldest go, those of one address first by each other. */
const openGood = () => {
  const byAddress = new Map<string, Set<string>>()
  let size = 0
  const remove = (address: string, id: string): void => {
    const known = byAddress.get(address)
    if (!known?.delete(id)) return
    size -= 1
    if (known.size === 0) byAddress.delete(address)
  }
  const removeOldest = (address: string): void => {
    for (const id of byAddress.get(address) ?? []) return remove(address, id)
  }
  return {
    has: (address: string, id: string): boolean => byAddress.get(address)?.has(id) === true,
    delete: remove,
    add: (address: string, id: string): void => {
      remove(address, id)
      if ((byAddress.get(address)?.size ?? 0) >= mostGoodOfOne) removeOldest(address)
      else if (size >= mostGood) removeOldest(byAddress.keys().next().value ?? address)
      const known = byAddress.get(address) ?? new Set()
      known.add(id)
      size += 1
      // Behind those that have been away.
      byAddress.delete(address)
      byAddress.set(address, known)
    },
  }
}

/**
 * Of those that have been away longest, one about which there is nothing to remember; else the one that has nothing under
 * way. (Those that have are fewer than there can be connections.)
 */
const makeRoom = (entries: Map<string, Entry>, present: number): void => {
  let looked = 0
  let oldest: string | undefined
  for (const [address, entry] of entries) {
    if (entry.underWay > 0) continue
    oldest ??= address
    looked += 1
    const isIdle = present - entry.at > secondMs && present - entry.failuresAt > forgetMs
    if (!isIdle && looked < mostLooked) continue
    entries.delete(isIdle ? address : oldest)
    return
  }
}

const secondMs = 1_000
const forgetMs = 60_000
const mostAddresses = 20_000
const mostLooked = 16
const mostGood = 10_000
/** Many are behind one NAT. */
const mostGoodOfOne = 1_000
