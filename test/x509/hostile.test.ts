import t from 'tap'

import { isProblem } from '../../src/errors.ts'
import { parseRequest, verifyPossession } from '../../src/x509/csr.ts'
import { parsePem } from '../../src/x509/pem.ts'
import { type HostileCase, hostileCases } from '../helpers/hostile.ts'

const read = async ({ body, contentType }: HostileCase): Promise<string> => {
  const input = body()
  try {
    const der = contentType === 'application/x-pem-file' ? parsePem(input, 'CERTIFICATE REQUEST') : (input as Buffer)
    await verifyPossession(parseRequest(der))
    return 'accepted'
  } catch (error) {
    if (isProblem(error)) return error.code
    throw error
  }
}

for (const one of hostileCases) {
  const expected = typeof one.expect === 'string' ? one.expect : 'accepted'
  t.test(`${one.row}: ${one.name}: ${expected}`, async (t) => {
    t.equal(await read(one), expected)
  })
}

t.test('no two cases have one name', async (t) => {
  const titles = hostileCases.map(({ row, name }) => `${row}: ${name}`)
  t.same(
    titles.filter((title, i) => titles.indexOf(title) !== i),
    [],
  )
})
