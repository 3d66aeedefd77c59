/** `chancery login` and `context`: which server, trusting what, as whom, so that no other command need be told. */
import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import type { Command } from 'commander'

import {
  assertContextName,
  assertServer,
  type Context,
  changeContexts,
  contextNamed,
  loadContexts,
} from '../client/contexts.ts'
import { readIdentity, tokenIn } from '../client/proof.ts'
import { assertAnchor, clientAt } from '../client/rest.ts'
import { Failure } from '../lib/failure.ts'
import { readGivenText } from '../lib/input-files.ts'
import { openOutput } from '../lib/output.ts'

interface AddOptions {
  readonly server: string
  readonly ca: string
  readonly tokenFile?: string
  readonly tokenStdin?: boolean
  readonly cert?: string
  readonly key?: string
  readonly context?: string
  readonly oidc?: string
  readonly clientId?: string
  readonly scope?: string
  readonly oidcCa?: string
}

interface JsonOption {
  readonly json?: boolean
}

export const addContextCommands = (program: Command): void => {
  withPlace(
    program
      .command('login')
      .description('use a server from now on, as whom a token says; it is asked whether it takes it'),
  )
    .option('--context <name>', 'what to call it; host and port of the server by default')
    .option('--oidc <issuer>', 'log in at this identity provider, in a browser of any machine (RFC 8628)')
    .option('--client-id <id>', 'with --oidc: as which of its clients')
    .option('--scope <scopes>', 'with --oidc: beside openid', 'offline_access')
    .option(
      '--oidc-ca <file>',
      'with --oidc: trust anchor for its certificate; by default the public CAs that Node brings along',
    )
    .action(async (options: AddOptions) => {
      assertServer(options.server)
      const name = options.context ?? new URL(options.server).host.replaceAll(/[[\]]/g, '')
      assertContextName(name)
      const made = await (options.oidc === undefined ? readContext(options) : logIn(options, options.oidc))
      const { server, ca, certificate, oidc } = made
      const proof = certificate
        ? { identity: await readIdentity(certificate) }
        : { token: oidc ? oidc.idToken : await tokenIn(made) }
      const client = clientAt({ server, ca, ...proof })
      const missing = await client.call('GET', '/v1/authorities').then(() => undefined, whatIsMissing)
      await add(name, made)
      say(`${name} is the current context: ${client.origin} takes the ${certificate ? 'certificate' : 'token'}.`)
      if (missing !== undefined) process.stderr.write(`note: it may do nothing yet. ${missing}\n`)
    })

  const context = program.command('context').description('servers that you use, and as whom')

  withPlace(context.command('add <name>').description('add or replace one without asking its server')).action(
    async (name: string, options: AddOptions) => {
      await add(name, await readContext(options), false)
      say(`${name} is a context now.`)
    },
  )

  context
    .command('use <name>')
    .description('make it the one that commands use')
    .action(async (name: string) => {
      await changeContexts(process.env, ({ contexts }) => {
        contextNamed(contexts, name)
        return { contexts, current: name }
      })
      say(`${name} is the current context.`)
    })

  context
    .command('list')
    .description('list them, never their tokens')
    .option('--json', 'print JSON for machines')
    .action(async ({ json = false }: JsonOption) => {
      const { contexts, current } = await loadContexts(process.env)
      const rows = Object.entries(contexts).map(([name, { server, tokenFile, certificate, oidc }]) => ({
        current: name === current ? '*' : '',
        name,
        server,
        token: certificate?.certificateFile ?? (oidc ? `by ${oidc.issuer}` : (tokenFile ?? '(kept in the file)')),
      }))
      openOutput(json).table(rows, ['current', 'name', 'server', 'token'])
    })

  context
    .command('remove <name>')
    .description('forget one, and its token if it is kept in the file')
    .action(async (name: string) => {
      await changeContexts(process.env, ({ contexts, current }) => {
        contextNamed(contexts, name)
        const { [name]: _, ...rest } = contexts
        return { contexts: rest, current: current === name ? undefined : current }
      })
      say(`${name} is forgotten.`)
    })
}

/** A caller without grants has logged in all the same; the message says as whom. */
const whatIsMissing = (error: unknown): string => {
  if (error instanceof Failure && error.problemCode === 'auth.forbidden') return error.message
  throw error
}

const withPlace = (command: Command): Command =>
  command
    .requiredOption('--server <url>', 'https://host:port of the API')
    .requiredOption('--ca <file>', 'trust anchor for its certificate, which is copied into the context')
    .option('--token-file <file>', 'file with a bearer token, which is read each time')
    .option('--token-stdin', 'read the token from standard input, and keep it in the context file')
    .option('--cert <file>', 'a client certificate (PEM, with its chain) in place of a token, which is read each time')
    .option('--key <file>', 'with --cert: its private key')

/** Tokens come by file or standard input: what is typed is seen by other users, and kept by shells. */
const readContext = async (options: AddOptions): Promise<Context> => {
  const { server, ca, tokenFile, tokenStdin, cert, key } = options
  assertOneWay(options)
  assertServer(server)
  if ([tokenFile, cert, key].includes('-'))
    throw new Failure(
      'usage',
      'What is read each time is no standard input: name a file, or give a token by --token-stdin.',
    )
  if (cert !== undefined && key !== undefined)
    return { server, ca: await readAnchor(ca), certificate: { certificateFile: resolve(cert), keyFile: resolve(key) } }
  const token = tokenStdin ? await readToken() : undefined
  return {
    server,
    ca: await readAnchor(ca),
    ...(tokenFile !== undefined && { tokenFile: resolve(tokenFile) }),
    ...(token !== undefined && { token }),
  }
}

const assertOneWay = ({ tokenFile, tokenStdin, cert, key, oidc, clientId }: AddOptions): void => {
  if ((cert === undefined) !== (key === undefined)) throw new Failure('usage', '--cert and --key go together.')
  if ((oidc === undefined) !== (clientId === undefined))
    throw new Failure('usage', '--oidc and --client-id go together.')
  if ([tokenFile, tokenStdin, cert, oidc].filter((way) => way !== undefined).length === 1) return
  throw new Failure(
    'usage',
    'Give the token either by --token-file or by --token-stdin, or log in by --cert and --key, or by --oidc; by one of them.',
  )
}

/** By the device flow: the user types a code in a browser on any machine. */
const logIn = async (options: AddOptions, issuer: string): Promise<Context> => {
  assertOneWay(options)
  const { server, ca, clientId = '', scope = '', oidcCa } = options
  const provider = {
    issuer,
    clientId,
    scope,
    ...(oidcCa !== undefined && { ca: await readAnchor(oidcCa, '--oidc-ca') }),
  }
  const made = { server, ca: await readAnchor(ca) }
  const { loginByDevice } = await import('../client/oidc.ts')
  const deps = { elapsed: () => performance.now(), sleep, tell: (text: string) => void process.stderr.write(text) }
  return { ...made, oidc: { ...provider, ...(await loginByDevice(provider, deps)) } }
}

const readAnchor = async (file: string, way = '--ca'): Promise<string> =>
  assertAnchor(await readGivenText(file, 'The trust anchor '), file, way)

const readToken = async (): Promise<string> => {
  const token = (await readGivenText('-')).trim()
  if (!/^[\x21-\x7e]+$/.test(token)) throw new Failure('usage', 'What came on standard input is no token.')
  return token
}

const add = async (name: string, made: Context, makeCurrent = true): Promise<void> => {
  assertContextName(name)
  await changeContexts(process.env, ({ contexts, current }) => ({
    contexts: { ...contexts, [name]: made },
    current: makeCurrent ? name : current,
  }))
}

const say = (text: string): void => void process.stdout.write(text.endsWith('\n') ? text : `${text}\n`)
