import { setTimeout as pause } from 'node:timers/promises'

import t from 'tap'

import { openQuestions } from '../../src/keys/signer/questions.ts'
import type { SignerRecord } from '../../src/keys/signer/stream.ts'

const record = (id: number, text = ''): SignerRecord => ({ id, kind: 0, body: Buffer.from(text) })
const never = (): never => {
  throw new Error('nobody was late')
}

t.test('each question gets its own answer, whatever order they come in', async (t) => {
  const questions = openQuestions(never)
  const heard: string[] = []
  const ids = ['a', 'b', 'c'].map((name) => questions.add((answer) => heard.push(`${name}${answer?.body}`), 60_000))
  t.notOk(ids.includes(0), 'nought is what nobody asked for')
  for (const id of ids.toReversed()) t.ok(questions.answer(record(id, `${ids.indexOf(id)}`)))
  t.same(heard, ['c2', 'b1', 'a0'])
  t.notOk(questions.answer(record(ids[0] as number)), 'a second answer is nobody’s')
  const next = questions.add((answer) => heard.push(`d${answer?.body}`), 60_000)
  for (const id of ids) t.notOk(questions.answer(record(id)), 'nor is it that of who has the place now')
  t.equal(heard.length, 3)
  t.ok(questions.answer(record(next, '3')))
  t.equal(heard.at(-1), 'd3')
  t.notOk(questions.answer(record(0)))
  questions.end()
})

t.test(
  'an id is not used again soon, so that an answer to the one before is not taken for that to the next',
  async (t) => {
    const questions = openQuestions(never)
    const ids = new Set<number>()
    for (let i = 0; i < 4_000; i += 1) {
      const id = questions.add(() => {}, 60_000)
      ids.add(id)
      questions.answer(record(id))
    }
    t.equal(ids.size, 4_000)
    for (const id of ids) if (!Number.isInteger(id) || id <= 0 || id > 0xffff_ffff) t.fail(`${id}`)
    for (let i = 0; i < 10_000; i += 1) questions.answer(record(questions.add(() => {}, 60_000)))
    t.pass('and they never run out')
    questions.end()
  },
)

t.test('whoever is not answered in time is told of once, after the shortest patience', async (t) => {
  const told: number[] = []
  const questions = openQuestions((patienceMs) => {
    told.push(patienceMs)
    questions.end()
  })
  const settled: unknown[] = []
  questions.add((answer) => settled.push(answer), 60_000)
  const answered = questions.add((answer) => settled.push(answer?.id), 20)
  questions.add((answer) => settled.push(answer), 500)
  questions.answer(record(answered))
  await pause(30)
  t.same(told, [], 'an answered question is not late')
  while (told.length === 0) await pause(10)
  t.same(told, [500])
  t.same(settled, [answered, undefined, undefined])
})

t.test('at the end nobody is left without a word, and more can be asked', async (t) => {
  const questions = openQuestions(never)
  const settled: unknown[] = []
  const before = questions.add((answer) => settled.push(answer), 20)
  questions.add((answer) => settled.push(answer), 20)
  questions.end()
  t.same(settled, [undefined, undefined])
  t.notOk(questions.answer(record(before)))
  await pause(40)
  const id = questions.add((answer) => settled.push(answer?.id), 60_000)
  t.ok(questions.answer(record(id)))
  t.equal(settled.at(-1), id)
})

t.test('patience holds also for what is asked after the end, and while it comes', async (t) => {
  const told: number[] = []
  const questions = openQuestions((patienceMs) => {
    told.push(patienceMs)
    questions.end()
  })
  const late = async (patienceMs: number): Promise<void> => {
    while (told.length === 0) await pause(5)
    t.same(told.splice(0), [patienceMs])
  }
  questions.add(() => {}, 30)
  questions.end()
  questions.add(() => {}, 50)
  await late(50)
  const settled: unknown[] = []
  questions.add(() => questions.add((answer) => settled.push(answer), 40), 20)
  questions.add(() => {}, 60_000)
  await late(20)
  t.same(settled, [], 'it was asked while all others were told of the end')
  await late(40)
  t.same(settled, [undefined])
})
