import pg from 'pg'
import { type Logger, pino } from 'pino'
import t from 'tap'

import { describeError, logOptions } from '../../src/log.ts'

const written = (write: (log: Logger) => void): string => {
  const lines: string[] = []
  write(pino(logOptions('info'), { write: (line: string) => lines.push(line) }))
  return lines.join('')
}

t.test('secrets are cut out wherever they are put', (t) => {
  const names = [
    'authorization',
    'cookie',
    'set-cookie',
    'password',
    'passphrase',
    'pin',
    'token',
    'secret',
    'csr',
    'ownerUrl',
  ]
  for (const name of names) {
    const text = written((log) =>
      log.info({ [name]: 'S3CRET', a: { [name]: 'S3CRET' }, req: { headers: { [name]: 'S3CRET' } } }, 'a line'),
    )
    t.notMatch(text, 'S3CRET', name)
    t.match(text, '[redacted]')
  }
  for (const scheme of ['postgres', 'postgresql', 'POSTGRES']) {
    const text = written((log) => log.info({ a: { target: `${scheme}://owner:S3CRET@db/chancery` } }, 'a line'))
    t.notMatch(text, 'S3CRET', scheme)
  }
  t.end()
})

t.test('an error shows its causes, and neither rows nor what was parsed', (t) => {
  const database = Object.assign(new pg.DatabaseError('duplicate key', 1, 'error'), {
    code: '23505',
    constraint: 'serials',
    detail: 'Key (secret)=(S3CRET) already exists.',
    where: 'S3CRET',
  })
  const url = Object.assign(new TypeError('Invalid URL'), { input: 'postgresql://u:S3CRET@h' })
  const text = written((log) =>
    log.error({ err: new Error('outer', { cause: new Error('inner', { cause: database }) }), error: url }),
  )
  t.notMatch(text, 'S3CRET')
  const line = JSON.parse(text)
  t.match(line.err, {
    message: 'outer',
    stack: String,
    cause: { message: 'inner', cause: { code: '23505', constraint: 'serials' } },
  })
  t.equal(line.level, 'error')
  t.match(line.time, /^\d{4}-\d\d-\d\dT.*Z$/)
  t.end()
})

t.test('a name with control characters stays on one line', (t) => {
  const text = written((log) => log.info({ name: 'a\r\nb\u001b[31m' }, 'c\nd'))
  t.equal(text.trimEnd().split('\n').length, 1)
  t.notOk(text.includes('\u001b'))
  t.end()
})

t.test('an error whose cause is itself ends', (t) => {
  const error: Error & { cause?: unknown } = new Error('loop')
  error.cause = error
  t.ok(JSON.stringify(describeError(error)).length < 5_000)
  t.end()
})
