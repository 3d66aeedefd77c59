/** `chancery login` and `context`: which server, trusting what, as whom, so that no other command need be told. */
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'

import type { Command } from 'commander'

import { assertServer, clientAt, tokenIn } from './client.ts'
import { assertContextName, type Context, contextNamed, loadContexts, saveContexts } from './contexts.ts'
import { Failure } from './failure.ts'
import { openOutput } from './output.ts'

interface AddOptions {
  readonly server: string
  readonly ca: string
  readonly tokenFile?: string
  readonly tokenStdin?: boolean
  readonly context?: string
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
    .action(async (options: AddOptions) => {
      const made = await readContext(options)
      const name = options.context ?? new URL(made.server).host.replaceAll(/[[\]]/g, '')
      assertContextName(name)
      const client = clientAt({ server: made.server, ca: made.ca, token: await tokenIn(made) })
      await client.call('GET', '/v1/authorities')
      await add(name, made)
      say(`${name} is the current context: ${client.origin} takes the token.`)
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
      const { contexts } = await loadContexts(process.env)
      contextNamed(contexts, name)
      await saveContexts(process.env, { contexts, current: name })
      say(`${name} is the current context.`)
    })

  context
    .command('list')
    .description('list them, never their tokens')
    .option('--json', 'print JSON for machines')
    .action(async ({ json = false }: JsonOption) => {
      const { contexts, current } = await loadContexts(process.env)
      const rows = Object.entries(contexts).map(([name, { server, tokenFile }]) => ({
        current: name === current ? '*' : '',
        name,
        server,
        token: tokenFile ?? '(kept in the file)',
      }))
      openOutput(json, say).table(rows, ['current', 'name', 'server', 'token'])
    })

  context
    .command('remove <name>')
    .description('forget one, and its token if it is kept in the file')
    .action(async (name: string) => {
      const { contexts, current } = await loadContexts(process.env)
      contextNamed(contexts, name)
      const { [name]: _, ...rest } = contexts
      await saveContexts(process.env, { contexts: rest, current: current === name ? undefined : current })
      say(`${name} is forgotten.`)
    })
}

const withPlace = (command: Command): Command =>
  command
    .requiredOption('--server <url>', 'https://host:port of the API')
    .requiredOption('--ca <file>', 'trust anchor for its certificate, which is copied into the context')
    .option('--token-file <file>', 'file with a bearer token, which is read each time')
    .option('--token-stdin', 'read the token from standard input, and keep it in the context file')

/** Tokens come by file or standard input: what is typed is seen by other users, and kept by shells. */
const readContext = async ({ server, ca, tokenFile, tokenStdin }: AddOptions): Promise<Context> => {
  if ((tokenFile === undefined) === (tokenStdin === undefined))
    throw new Failure('usage', 'Give the token either by --token-file or by --token-stdin.')
  assertServer(server)
  const token = tokenStdin ? await readToken() : undefined
  return {
    server,
    ca: await readAnchor(ca),
    ...(tokenFile !== undefined && { tokenFile: resolve(tokenFile) }),
    ...(token !== undefined && { token }),
  }
}

const readAnchor = (file: string): Promise<string> =>
  readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new Failure('usage', `The trust anchor ${file} cannot be read (${error.code}).`)
  })

const readToken = async (): Promise<string> => {
  const chunks: Buffer[] = []
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer)
  const token = Buffer.concat(chunks).toString().trim()
  if (!/^[\x21-\x7e]+$/.test(token)) throw new Failure('usage', 'What came on standard input is no token.')
  return token
}

const add = async (name: string, made: Context, makeCurrent = true): Promise<void> => {
  assertContextName(name)
  const { contexts, current } = await loadContexts(process.env)
  await saveContexts(process.env, { contexts: { ...contexts, [name]: made }, current: makeCurrent ? name : current })
}

const say = (text: string): void => void process.stdout.write(text.endsWith('\n') ? text : `${text}\n`)
