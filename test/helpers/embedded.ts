/** An embedded PostgreSQL of a test's own: none is left behind, however the test ends. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, realpath } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { type Embedded, openEmbedded } from '../../src/db/embedded/embedded.ts'
import { quiet } from './log.ts'

interface Teardown {
  teardown(close: () => Promise<unknown>): void
}

/**
 * A data folder that is yet to be made, inside one that only we can enter. Beside us a shell waits for the end of the test, or
 * of this process, which runs no teardown where it is killed, or takes too long: whichever server runs there then is ended, and
 * all of it is removed.
 */
export const embeddedFolder = async (t: Teardown, name = 'data'): Promise<string> => {
  const parent = await realpath(await mkdtemp(join(tmpdir(), 'chancery-embedded-')))
  const keeper = spawn('/bin/sh', ['-c', clear, 'sh', parent], { detached: true, stdio: ['pipe', 'ignore', 'ignore'] })
  keeper.unref()
  const stdin = keeper.stdin as typeof keeper.stdin & { unref(): void }
  stdin.unref()
  t.teardown(async () => {
    keeper.ref()
    stdin.end()
    await once(keeper, 'exit')
  })
  return join(parent, name)
}

export interface OwnEmbedded extends Embedded {
  readonly superuserUrl: string
}

export const openOwnEmbedded = async (t: Teardown, dataDir?: string): Promise<OwnEmbedded> => {
  const data = dataDir ?? (await embeddedFolder(t))
  const embedded = await openEmbedded({ dataDir: data, log: quiet })
  t.teardown(() => embedded.stop())
  const password = (await readFile(join(data, 'postgres', 'superuser.password'), 'utf8')).trim()
  return { ...embedded, superuserUrl: embedded.ownerUrl.replace(/\/\/[^@]*@/, `//postgres:${password}@`) }
}

/**
 * At once, and not in order: nobody needs what it holds. A pid may be anyone's, but for what it is told to run: a small Debian has no
 * `ps` to say it, and no system but Linux this /proc.
 */
const clear = `
  cat > /dev/null
  find -L "$1" -name postmaster.pid 2> /dev/null | while read -r file; do
    read -r pid < "$file"
    case "$(tr '\\0' ' ' < "/proc/$pid/cmdline" || ps -o args= -p "$pid")" in *postgres' -D '*) ;; *) continue ;; esac
    kill -QUIT "$pid"
    tries=0
    while [ -e "$file" ] && [ $((tries += 1)) -lt 200 ]; do sleep 0.05; done
  done
  rm -rf "$1"`
