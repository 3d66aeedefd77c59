/**
 * Tests that take more than some two seconds by themselves. Most start processes, kill them, and wait for them; all together they
 * are half of the time that the suite takes. `npm test` leaves them out, and says how many; `npm test -- --all` runs them, and
 * so does whoever names their file or folder.
 */
import t, { type Test } from 'tap'

type Body = (t: Test) => unknown

/** As `t.test` of tap. */
export const drill = (name: string, body: Body): Promise<unknown> => t.test(name, extra, body)

/** Of tests that are alike, and of which each takes long: one stays, and the others are drills. */
export const drillBut = (stays: boolean, name: string, body: Body): Promise<unknown> =>
  stays ? t.test(name, body) : drill(name, body)

const extra = process.env['DRILLS'] === 'no' ? { skip: 'a drill: npm test -- --all' } : {}
