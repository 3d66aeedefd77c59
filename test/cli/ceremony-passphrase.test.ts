/** What a root's key is kept under: years later there is only the paper. */
import { execFileSync } from 'node:child_process'
import { readdir, writeFile } from 'node:fs/promises'

import t from 'tap'

import { exitCodes } from '../../src/lib/failure.ts'
import { slowTest } from '../helpers/slow.ts'
import { crlParameters, fileKey, openTable, passphrase, rootParameters } from './ceremonies.ts'

t.setTimeout(300_000)

const done = { code: 0, err: '' }

slowTest('no key is made with a passphrase that nobody could type again from paper', async (t) => {
  const table = await openTable(t)
  const made = rootParameters('root', { key: { ...fileKey('root'), algorithm: 'ed25519', passphraseFile: 'odd' } })
  for (const [content, told] of [
    [`${passphrase}\n\n`, /not seen on paper \(U\+000A, a second line\), and no key was made/],
    [`\ufeff${passphrase}\n`, /U\+FEFF, the byte order mark/],
    [`${passphrase}\u00a0word\n`, /U\+00A0/],
    [Buffer.concat([Buffer.from([0xe4]), Buffer.from(passphrase)]), /U\+FFFD, octets that are no UTF-8/],
    [`${passphrase} \n`, /has a blank at its beginning or end/],
  ] as const) {
    await table.write('odd', content, 0o600)
    const ended = await table.act('root', made)
    t.match(ended, { code: exitCodes.usage, err: told })
    t.notMatch(ended.out + ended.err, passphrase)
    t.same(await readdir(table.folder), ['odd', 'passphrase', 'root.yaml'])
  }
  await table.write('odd', `${passphrase}\r\n`, 0o600)
  t.match(await table.act('root', made), done)
  t.match(await table.act('crl', crlParameters('root', 1)), done, 'the end of its line is none of it')
})

t.test('a passphrase comes by a pipe as well, as from two people', async (t) => {
  const table = await openTable(t)
  const pipe = table.path('pipe')
  execFileSync('mkfifo', ['-m', '600', pipe])
  const made = rootParameters('root', { key: { ...fileKey('root'), algorithm: 'ed25519', passphraseFile: 'pipe' } })
  const [ended] = await Promise.all([table.act('root', made), writeFile(pipe, `${passphrase}\n`)])
  t.match(ended, done)
  t.match(await table.act('crl', crlParameters('root', 1)), done)
})
