import t from 'tap'

import { isProblem } from '../../src/errors.ts'
import { parseRequest, verifyPossession } from '../../src/x509/csr.ts'
import { parsePem } from '../../src/x509/pem.ts'
import { cpu } from '../helpers/cpu.ts'
import { type HostileCase, hostileCases } from '../helpers/hostile.ts'

/** The code that a case gets, and how long it would hold the event loop. */
const read = async ({ body, contentType }: HostileCase): Promise<{ code: string; milliseconds: number }> => {
  const input = body()
  const start = cpu()
  let milliseconds = 0
  try {
    const der = contentType === 'application/x-pem-file' ? parsePem(input, 'CERTIFICATE REQUEST') : (input as Buffer)
    const csr = parseRequest(der)
    milliseconds = cpu() - start
    await verifyPossession(csr)
    return { code: 'accepted', milliseconds }
  } catch (error) {
    if (isProblem(error)) return { code: error.code, milliseconds: milliseconds || cpu() - start }
    throw error
  }
}

for (const one of hostileCases) {
  const expected = typeof one.expect === 'string' ? one.expect : 'accepted'
  t.test(`${one.row}: ${one.name}: ${expected}`, async (t) => {
    const { code, milliseconds } = await read(one)
    t.equal(code, expected)
    t.ok(milliseconds < 50, `it held the event loop for ${milliseconds} ms`)
  })
}

t.test('no two cases have one name', async (t) => {
  const titles = hostileCases.map(({ row, name }) => `${row}: ${name}`)
  t.same(
    titles.filter((title, i) => titles.indexOf(title) !== i),
    [],
  )
})
