/**
 * Tests that take more than two seconds: half of the suite's time. `npm test` skips them and prints how many;
 * `npm test -- --all` and a named file or folder run them.
 */
import t, { type Test } from 'tap'

type Body = (t: Test) => unknown

/** As `t.test` of tap. */
export const slowTest = (name: string, body: Body): Promise<unknown> => t.test(name, extra, body)

/** Of similar slow tests, those that `stays` names run always. */
export const slowUnless = (stays: boolean, name: string, body: Body): Promise<unknown> =>
  stays ? t.test(name, body) : slowTest(name, body)

const extra = process.env['SLOW_TESTS'] === 'no' ? { skip: 'a slow test: npm test -- --all' } : {}
