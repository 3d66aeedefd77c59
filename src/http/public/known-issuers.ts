/**
 * The issuers, of which the certificate and the number of lists are fixed for good: what was read once is given without the
 * database. Who builds a chain, or fetches lists, needs it when that is away, as much as the lists.
 */
import type { IssuerRecord, Records } from '../../ca/records.ts'
import type { App } from '../fastify.ts'

/** The issuer with that name, its state as it was when it was read; undefined where there is none. */
export type FindIssuer = (name: string) => Promise<IssuerRecord | undefined>

export const openKnownIssuers = (app: App, records: Pick<Records, 'issuers'>): FindIssuer => {
  const known = new Map<string, IssuerRecord>()
  const learn = async (as?: 'fresh'): Promise<void> => {
    for (const issuer of await records.issuers(as)) known.set(issuer.name, issuer)
  }
  // No start waits for it, or fails by it: whoever asks for one that is not known by then reads again.
  app.addHook('onReady', (done) => {
    learn().catch(() => {})
    done()
  })
  return async (name) => {
    // A certificate may have its URLs from the moment that it was brought: a cache would keep a 404 for longer than that.
    if (!known.has(name)) await learn('fresh')
    return known.get(name)
  }
}
