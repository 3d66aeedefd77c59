/** What `npm run bench -- …` takes. */
import { parseArgs } from 'node:util'

export interface Options {
  /** Times that the targets take turns. */
  readonly rounds: number
  /** Of measuring, for each target in each round and with each number of clients. */
  readonly seconds: number
  /** Numbers of connections, each its own row. */
  readonly clients: readonly number[]
  /** Names of targets, or undefined for all. */
  readonly only: readonly string[] | undefined
  /** In a scratch database, for what is measured there; 0: as many as it thinks fit. */
  readonly certificates: number
  readonly generator: 'wrk' | 'node' | undefined
  /** Writes a CPU profile of the service, and what is in it. Slows it, so the figures are not kept. */
  readonly profile: boolean
  /** Flags of Node for the service, beside those of `npm start`: to try them out. */
  readonly nodeFlags: readonly string[]
  /** Folder of another checkout of Chancery, measured in turn with this one. */
  readonly base: string | undefined
}

/** Throws a sentence. */
export const parseOptions = (argv: readonly string[]): Options => {
  const { values } = parseArgs({ args: [...argv], options, allowPositionals: false })
  const { generator } = values
  if (generator !== undefined && generator !== 'wrk' && generator !== 'node')
    throw new Error('--generator is wrk or node')
  return {
    rounds: whole('rounds', values.rounds),
    seconds: whole('seconds', values.seconds),
    clients: values.clients.split(',').map((text) => whole('clients', text)),
    only: values.only?.split(','),
    certificates: values.certificates === '0' ? 0 : whole('certificates', values.certificates),
    generator,
    profile: values.profile,
    base: values.base,
    nodeFlags: values['node-flags']?.split(' ').filter((flag) => flag !== '') ?? [],
  }
}

/** Flags of Node for the service, with those that write its profile where one is wanted. */
export const flagsOf = ({ nodeFlags, profile }: Options): readonly string[] => [
  ...nodeFlags,
  ...(profile ? ['--cpu-prof', '--cpu-prof-dir=/tmp/chancery-profile'] : []),
]

export const usage = `npm run bench -- [identities|keys|kubernetes|revocation|roll] [options]
  --rounds N          times that the targets take turns (5)
  --seconds N         of measuring, each time (8)
  --clients N,N,…     connections at once, a row each (32,128)
  --only NAME,NAME,…  targets: chancery, chancery-keys, cfssl-recording, cfssl, step-ca; further rows: floor, start;
                      and, only when named, chancery-livez and chancery-explain (a dry run): parts of an issuance,
                      and chancery-inline: signing in the process that reads requests
                      of identities: token, jwt, certificate, token-new, certificate-new, certificate-resumed
                      of keys: signatures, latency, loop, issuance
                      of revocation: answers, arrival, lists, many
                      of roll: search, verify, tree
  --certificates N    of kubernetes: how many requests come at once (1,000); of revocation: how many are revoked; of roll: among how many is searched (1,000,000), and how
                      many are verified (100,000)
  --generator NAME    wrk or node (wrk where it is installed)
  --base FOLDER       another checkout of Chancery with its node_modules, in turn with this one
  --profile           writes a CPU profile of the service under load; its figures are not kept
  --node-flags=TEXT   further flags of Node for the service; its figures are not kept
`

const whole = (name: string, text: string): number => {
  const number = /^\d{1,8}$/.test(text) ? Number(text) : 0
  if (number < 1) throw new Error(`--${name} takes whole numbers from 1, not ${JSON.stringify(text)}`)
  return number
}

const options = {
  rounds: { type: 'string', default: '5' },
  seconds: { type: 'string', default: '8' },
  clients: { type: 'string', default: '32,128' },
  only: { type: 'string' },
  certificates: { type: 'string', default: '0' },
  base: { type: 'string' },
  generator: { type: 'string' },
  profile: { type: 'boolean', default: false },
  'node-flags': { type: 'string' },
} as const
