/**
 * The PKCS#11 provider alone, in a process with as many threads as the signer process would have: prints signatures a
 * second. Started by `latency.ts`; one argument, JSON.
 */
import { openLogins } from '../../src/keys/pkcs11/pins.ts'
import { openPkcs11 } from '../../src/keys/pkcs11/provider.ts'
import { rateOf } from './drive.ts'

interface Job {
  readonly module: string
  readonly sessions: number
  readonly seconds: number
}

const { module, sessions, seconds } = JSON.parse(process.argv[2] ?? '') as Job
const settings = { modules: [module], pin: async () => '1234', sessions, queue: 512, deadlineMs: 2_000 }
const provider = openPkcs11(settings, (reason) => {
  throw new Error(reason)
})
const uri = 'pkcs11:token=ca;object=latency'
const key = await openLogins()(uri, provider.logIn, () => provider.open(uri)).catch(() =>
  provider.create(uri, 'ec-p256'),
)
// Always somebody waits for a session that is given back.
process.stdout.write(JSON.stringify({ perSecond: await rateOf(key, { outstanding: 2 * sessions, seconds }) }))
process.exit(0)
