import t from 'tap'

import { openParts } from '../../src/lib/disposer.ts'

t.test('parts are closed once each, in reverse, though one of them fails', async (t) => {
  const closed: string[] = []
  const { close } = await openParts(async (parts) => {
    parts.add(async () => void closed.push('first'))
    parts.add(() => Promise.reject(new Error('second')))
    parts.add(() => closed.push('third'))
    return { close: parts.close }
  })
  t.same(closed, [], 'not while it is open')
  await t.rejects(close(), { message: 'second' })
  t.same(closed, ['third', 'first'])
  await close()
  t.same(closed, ['third', 'first'])
})

t.test('two that close at once wait for the same, in the same order', async (t) => {
  const closed: string[] = []
  const { close } = await openParts(async (parts) => {
    parts.add(() => closed.push('first'))
    parts.add(async () => {
      await new Promise((resolve) => setTimeout(resolve, 20))
      closed.push('second')
      throw new Error('second')
    })
    return { close: parts.close }
  })
  const [one, other] = await Promise.allSettled([close(), close()])
  t.same(closed, ['second', 'first'])
  for (const end of [one, other]) t.match(end, { status: 'rejected', reason: { message: 'second' } })
})

t.test('what is stopped while it opens is closed after the part that was under way', async (t) => {
  const closed: string[] = []
  const stop = new AbortController()
  const opening = openParts(async (parts) => {
    parts.add(() => closed.push('first'))
    await Promise.resolve()
    stop.abort(new Error('stopped'))
    parts.add(() => closed.push('second'))
    parts.add(() => closed.push('third'))
  }, stop.signal)
  await t.rejects(opening, { message: 'stopped' })
  t.same(closed, ['second', 'first'])
  await t.rejects(
    openParts(async () => closed.push('begun'), stop.signal),
    { message: 'stopped' },
  )
  t.equal(closed.length, 2, 'nothing is begun')
})

t.test('where a part does not open, those before it are closed, and its own fault is told', async (t) => {
  const closed: string[] = []
  const opening = openParts(async (parts) => {
    parts.add(() => closed.push('first'))
    parts.add(() => Promise.reject(new Error('cannot be closed')))
    throw new Error('cannot be opened')
  })
  await t.rejects(opening, { message: 'cannot be opened' })
  t.same(closed, ['first'])
})
