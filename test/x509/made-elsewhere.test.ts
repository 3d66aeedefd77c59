/** Requests as other people's tools made them, kept octet by octet: what was asked of each, and what whoever is refused is told. */
import { readFile } from 'node:fs/promises'

import t from 'tap'

import { parseRequest, verifyPossession } from '../../src/x509/csr.ts'
import { parsePem } from '../../src/x509/pem.ts'

interface Made {
  /** The tool, its version, and what is odd about what it made. */
  readonly made: string
  readonly pem: string
}

interface Kept {
  /** With the names that the tool was given, and how it was told to sign. */
  readonly read: readonly (Made & { readonly names: readonly string[]; readonly signature: string })[]
  readonly refused: readonly (Made & { readonly code: string; readonly said: string })[]
}

const file = new URL('./fixtures/requests.json', import.meta.url)
const { read, refused }: Kept = JSON.parse(await readFile(file, 'utf8'))

for (const { made, pem, names, signature } of read)
  t.test(`${made}: is read as it was meant, and its key has signed it`, async (t) => {
    const csr = parseRequest(parsePem(pem, 'CERTIFICATE REQUEST'))
    t.same(
      csr.names.map(({ value }) => value),
      names,
    )
    t.equal(csr.signatureAlgorithm.id, signature)
    await verifyPossession(csr)
  })

for (const { made, pem, code, said } of refused)
  t.test(`${made}: is refused, and told why`, (t) => {
    t.throws(() => parseRequest(parsePem(pem, 'CERTIFICATE REQUEST')), { code, message: new RegExp(said) })
    t.end()
  })
