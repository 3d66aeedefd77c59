/**
 * Daemons look after certificates of forty minutes for an hour: each renews itself over mutual TLS, when the server
 * suggests it. What is real and what is simulated is told in hour.ts. `CHANCERY_TEST_DAEMONS` says how many daemons there
 * are, of ten certificates each: 16, since each comes back with all of its own, and of eight chance alone now and then puts
 * half of the certificates into the same ten seconds; with 100 it takes minutes.
 */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'

import t from 'tap'

import { slowTest } from '../helpers/slow.ts'
import { each, type Hour, minute, outage } from './hour.ts'

t.setTimeout(900_000)

const daemons = Number(process.env['CHANCERY_TEST_DAEMONS'] ?? 16)
const certificates = daemons * each

slowTest('certificates are rotated for an hour: none comes near its end, and the load spreads', async (t) => {
  // Apart from this process, whose watching of every promise would take as long as the work.
  const args = [join(import.meta.dirname, 'hour.ts'), `${daemons}`]
  const { stdout } = await promisify(execFile)(process.execPath, args, { maxBuffer: 2 ** 28 })
  const hour = JSON.parse(stdout) as Hour
  const linesOf = (event: string) => hour.lines.filter((line) => line.event === event)
  const first = linesOf('renewed').filter(({ at }) => at < minute / 2)
  const renewals = linesOf('renewed').filter(({ at }) => at >= minute / 2)
  t.equal(hour.certificates, certificates)
  t.equal(first.length, certificates, 'all have theirs within half a minute')
  t.ok(renewals.length >= 2 * certificates, `${renewals.length} renewals`)
  t.ok(Math.min(...hour.left) > 0.3, 'none had less than 30 % of its life left when the next one came')
  t.same(linesOf('failed'), [], 'nothing but the outage went wrong')
  t.equal(hour.renewed, renewals.length, 'each renewed itself, and no token was asked for after the first')
  t.equal(hour.issued, certificates + renewals.length, 'and the records have what was written, no more')
  t.equal(hour.stale, 0, 'the files are those of the last one')

  const tries = linesOf('unreachable')
  t.ok(tries.length >= daemons && tries.length <= 15 * daemons, `${tries.length} tries without a service`)
  t.ok(tries.every(({ at }) => at >= outage.from && at < outage.to + 5_000))
  const isAfter = ({ at }: { readonly at: number }): boolean => at >= outage.to && at < outage.to + 2 * minute
  const waited = renewals.filter(isAfter)
  const busiest = (of: readonly { readonly at: number }[], span: number): number =>
    Math.max(...[...Map.groupBy(of, ({ at }) => Math.floor(at / span)).values()].map((list) => list.length))
  const mean = renewals.length / 60
  const usually = busiest(
    renewals.filter((one) => !isAfter(one)),
    minute,
  )
  const then = busiest(waited, 10_000)
  t.comment(`${renewals.length} renewals, ${mean.toFixed(1)} a minute; at most ${usually}`)
  t.comment(`after the outage ${waited.length} in two minutes, at most ${then} of them in ten seconds`)
  t.comment(`at least ${(Math.min(...hour.left) * 100).toFixed(1)} % of a life was left; ${tries.length} tries`)
  t.ok(usually <= 5 * mean, 'though all were issued within a second')
  t.ok(then <= waited.length / 2, 'nor do those who waited come all at once')
})
