/** Faults that only show when the service starts, most of them when most of it is open already: it ends, and says why. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'

import { createSoftwareKey } from '../../src/keys/software.ts'
import { exitCodes } from '../../src/lib/failure.ts'
import { openTestDatabase } from '../helpers/database.ts'
import { startInstance } from '../helpers/instance.ts'

const folder = await mkdtemp(join(tmpdir(), 'chancery-late-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
const { servingUrl, ownerUrl } = await openTestDatabase(t)

const list = join(folder, 'list')
await writeFile(list, 'no list\n')
const taken = createServer()
await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
t.teardown(() => taken.close())
const { port } = taken.address() as { port: number }

const passphrase = 'of the odd key alone'
await (await createSoftwareKey({ path: join(folder, 'odd.pem'), passphrase, rounds: 1_000 }, 'ec-p256')).close()

const none = join(folder, 'none')
const cases: readonly [what: string, env: Readonly<Record<string, string>>, sentence: RegExp][] = [
  // Before the roll has one.
  [
    'a key of the roll that signs no checkpoints',
    { CHANCERY_ROLL_KEY: 'file:odd.pem', CHANCERY_KEY_PASSPHRASE: passphrase },
    /^CHANCERY_ROLL_KEY: file:odd\.pem is not an Ed25519 key, .*; name another, /m,
  ],
  ['blocked keys that are not there', { CHANCERY_BLOCKED_KEYS: none }, /^The list of blocked keys \S+none cannot be /m],
  ['blocked keys that are none', { CHANCERY_BLOCKED_KEYS: list }, /^The list of blocked keys \S+list cannot be used/m],
  ['a list of badkeys', { CHANCERY_BADKEYS_LIST: none }, /^The list of blocked keys \S+none cannot be used/m],
  [
    'all of them at once',
    { CHANCERY_BLOCKED_KEYS: list, CHANCERY_BADKEYS_LIST: none, CHANCERY_CLIENT_CA: none },
    /none cannot be used: .* by CHANCERY_BADKEYS_LIST\.\n.*list cannot be used: line 1 .* by CHANCERY_BLOCKED_KEYS\.\n.*CHANCERY_CLIENT_CA\.$/m,
  ],
  [
    'CAs of clients',
    { CHANCERY_CLIENT_CA: list },
    /^The CAs of clients cannot be read: .* Mend the file, or name another by CHANCERY_CLIENT_CA\.$/m,
  ],
  [
    'an anchor that cannot be written',
    { CHANCERY_ROLL_ANCHOR: '/sys/anchor' },
    /^CHANCERY_ROLL_ANCHOR: \/sys\/anchor cannot be made: E/m,
  ],
  [
    'an anchor that cannot be read',
    { CHANCERY_ROLL_ANCHOR: join(list, 'anchor') },
    /^The anchor \S+list\/anchor cannot be read \(ENOTDIR\): let the account .* or name the right file by CHANCERY_ROLL_ANCHOR\.$/m,
  ],
  [
    'a data folder that cannot be made',
    { CHANCERY_DATA: '/proc/x' },
    /^The data folder \/proc\/x cannot be used: it cannot be made, \/proc\/x \(ENOENT\)/m,
  ],
  ['an address that is taken', { CHANCERY_LISTEN: `127.0.0.1:${port}` }, /^Another process listens on /m],
]

/**
 * What is left open ends by itself too, but not so soon: a connection that idles is closed after 30 s. Counted from what it says,
 * since a start takes as long as others leave it no processor; whoever never says it is ended.
 */
const soonMs = 10_000

for (const [what, env, sentence] of cases)
  t.test(`${what}: it ends by itself`, async (t) => {
    const instance = startInstance({ ...{ data: folder, servingUrl, ownerUrl, port: 0, publicPort: 0 }, env })
    let told = Number.NEGATIVE_INFINITY
    instance.told(sentence, () => {
      told = performance.now()
    })
    const hung = setTimeout(() => instance.signal('SIGKILL'), 40_000)
    const code = await instance.exited
    clearTimeout(hung)
    t.equal(code, exitCodes.usage, instance.output())
    t.match(instance.output(), sentence)
    const tookMs = Math.round(performance.now() - told)
    t.ok(tookMs < soonMs, `soon: ${tookMs} ms`)
  })
