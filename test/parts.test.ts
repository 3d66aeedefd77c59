import t from 'tap'

import { openParts } from '../src/parts.ts'

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
