/** A schema that grew while people approved: where each request stands is what the records say. */
import { randomUUID } from 'node:crypto'
import { copyFile, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { openDatabase } from '../../src/db/database.ts'
import { migrate } from '../../src/db/migrate.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { quiet as log } from '../helpers/log.ts'
import { slowTest } from '../helpers/slow.ts'

t.setTimeout(300_000)

slowTest('what was approved while standings came to be stands as approved in the end', async (t) => {
  const { ownerUrl } = await openTestDatabase(t, { empty: true })
  const directory = await mkdtemp(join(tmpdir(), 'chancery-upgrade-'))
  t.teardown(() => rm(directory, { recursive: true }))
  const files = (await readdir('migrations')).filter((file) => file.endsWith('.sql')).sort()
  const migrateTo = async (version: number): Promise<number> => {
    for (const file of files.slice(0, version)) await copyFile(join('migrations', file), join(directory, file))
    return migrate({ ownerUrl, servingRole: 'chancery', log, directory })
  }
  const owner = openDatabase({ url: ownerUrl, max: 3, log, applicationName: 'test' })
  t.teardown(() => owner.close())

  await migrateTo(18)
  const [id, rejected] = [randomUUID(), randomUUID()]
  for (const text of [
    `insert into principals (name, created_by) values ('ci', 'x'), ('alice', 'x')`,
    `insert into authorities (name) values ('default')`,
    `insert into profiles (name, version, sha256, authority, document, created_by)
      values ('p', 1, sha256('x'), 'default', '{}', 'x')`,
    `insert into approval_requests (id, entry, principal, idempotency_key, digest, profile, profile_version, ask, decided, plan,
        required, created_at, expires_at)
      select id, number, 'ci', id::text, sha256('x'), 'p', 1, '{}', '{}', sha256('{}'), 1, now(), now() + interval '1 day'
      from unnest(array['${id}', '${rejected}']::uuid[]) with ordinality as r (id, number)`,
  ])
    await owner.query({ text })

  const upgraded = await owner.transaction(async (tx) => {
    await tx.query({ text: `insert into approvals values ('${id}', 'alice', 3, now(), 'x')` })
    await tx.query({
      text: `insert into approval_ends (request, kind, entry, at, by) values ('${rejected}', 'rejected', 4, now(), 'alice')`,
    })
    const done = migrateTo(19)
    for (;;) {
      const { rows } = await owner.query({
        text: `select from pg_locks where not granted and database = (select oid from pg_database where datname = current_database())`,
      })
      if (rows.length > 0) break
    }
    return { done }
  })
  await upgraded.done
  await migrateTo(files.length)
  const { rows } = await owner.query({
    text: 'select request, state, ended_at is not null as has_ended from approval_standings order by entry',
  })
  t.same(rows, [
    { request: id, state: 'approved', has_ended: false },
    { request: rejected, state: 'rejected', has_ended: true },
  ])
})
