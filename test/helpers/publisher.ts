/** A publisher of lists by itself: it waits for nobody, draws nothing and is never stopped. */

import type { Placed } from '../../src/ca/issuers/issuers.ts'
import type { CrlPublisherDeps } from '../../src/ca/revocation/crl.ts'
import { sha256 } from './hash.ts'

/** Of one issuer with so many lists; times, clock, records and whoever is told are the test's. */
export const aloneFor = (placed: Placed, shards: number) =>
  ({
    issuers: { all: () => [{ ...placed, issuer: Object.create(placed.issuer, { shards: { value: shards } }) }] },
    successions: 0,
    assertClock: () => {},
    chance: () => 1,
    sha256,
    nextTurn: async () => {},
    mayGoOn: async () => true,
    elapsedMs: () => 0,
  }) satisfies Partial<CrlPublisherDeps>
