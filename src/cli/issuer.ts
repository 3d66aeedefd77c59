/** `chancery issuer`: how issuers come to be, and their life. Keys are made where the service keeps them. */
import { X509Certificate } from 'node:crypto'

import type { Command } from 'commander'

import { type Client, segment } from '../client/rest.ts'
import { Failure } from '../lib/failure.ts'
import { readGivenText } from '../lib/input-files.ts'
import { bundleFault, hasBlock, isKeyMaterial } from '../x509/pem.ts'
import { type AttributeType, attributes, isAttributeType } from '../x509/subject.ts'
import { openRest, parseCount, type RestOptions, withRestOptions } from './rest.ts'

interface IssuerView extends Readonly<Record<string, unknown>> {
  readonly name: string
  readonly authority: string
  readonly state: string
  readonly certificate: string
}

interface RequestView {
  readonly name: string
  readonly csr: string
  readonly createdAt: string
}

interface KeyView extends Readonly<Record<string, unknown>> {
  readonly issuer: string
  readonly key: string
  readonly spki: string
}

interface MovedKeyView extends KeyView {
  readonly before: string
}

interface CreateOptions extends RestOptions {
  readonly authority: string
  readonly subject: string[]
  readonly algorithm?: string
  readonly key?: string
}

export const addIssuerCommand = (program: Command): void => {
  const issuer = program.command('issuer').description('CA certificates that Chancery signs with, and their life')

  withRestOptions(
    issuer
      .command('list')
      .description('list issuers with their states; requested: a key that waits for its certificate (issuer import)'),
  ).action(async (options: RestOptions) => {
    const { client, out } = await openRest(options)
    const { items } = (await client.call('GET', '/v1/issuers')).json<{ items: IssuerView[] }>()
    const names = new Set(items.map(({ name }) => name))
    const waiting = (await readRequests(client)).filter(({ name }) => !names.has(name))
    const rows = waiting.map((request) => ({ ...request, state: 'requested', since: request.createdAt }))
    const issued = items.map((item) => ({ ...item, notAfter: endOf(item) }))
    out.table([...issued, ...rows], ['name', 'authority', 'state', 'shards', 'since', 'notAfter'])
  })

  withRestOptions(
    issuer.command('csr <name>').description('print again the request for its certificate (PEM), as create did'),
  ).action(async (name: string, options: RestOptions) => {
    const { client, out } = await openRest(options)
    const { items } = (await client.call('GET', requestsPath)).json<{ items: RequestView[] }>()
    const found = items.find((request) => request.name === name)
    if (!found) throw new Failure('missing', `There is no request for an issuer called ${JSON.stringify(name)}.`)
    out.show(found, found.csr)
  })

  withRestOptions(
    issuer
      .command('create <name>')
      .description('make a key where the service keeps its keys, and print the request for its certificate (PEM)'),
  )
    .requiredOption('--authority <name>', 'which it will sign for; a new one, or one that is there')
    .requiredOption('--subject <attribute...>', 'in their order, like O="Example Inc" CN="Example Issuing 2027"')
    .option('--algorithm <id>', 'of the key: ec-p256 by default; ec-p384, ec-p521, ed25519, rsa-3072, rsa-4096, …')
    .option('--key <uri>', 'where the key is made, like pkcs11:token=ca;object=issuing-2027')
    .action(async (name: string, options: CreateOptions) => {
      const { client, out } = await openRest(options)
      const { authority, subject, algorithm, key } = options
      const body = {
        name,
        authority,
        subject: subject.map(parseAttribute),
        ...(algorithm !== undefined && { algorithm }),
        ...(key !== undefined && { key }),
      }
      const made = (await client.call('POST', requestsPath, { body })).json<{ csr: string }>()
      out.show(made, made.csr)
    })

  withRestOptions(
    issuer
      .command('import <name> <chain>')
      .alias('stage')
      .description(
        'take the certificate that a ceremony has made (PEM: it, those above it, its root last); it is staged',
      ),
  )
    .option(
      '--shards <n>',
      'how many lists what it revokes is cut into, for good: 1 to 1024, 128 by default; 1 for relying parties that take no list of a part',
    )
    .action(async (name: string, path: string, options: RestOptions & { shards?: string }) => {
      const { client, out } = await openRest(options)
      const { shards } = options
      const body = { ...(shards !== undefined && { shards: parseCount(shards) }), chain: await readChain(path) }
      const staged = (await client.call('PUT', `/v1/issuers/${segment(name)}`, { body })).json<IssuerView>()
      out.show(staged, `${name} is staged: its chain is published, and it signs nothing before it is activated.`)
    })

  withRestOptions(
    issuer
      .command('chains <name> <chain...>')
      .description(
        'bring its ways up to roots, in place of those that it has: a chain (PEM) for each, as with a cross-certificate',
      ),
  ).action(async (name: string, paths: string[], options: RestOptions) => {
    const { client, out } = await openRest(options)
    const body = { chains: await Promise.all(paths.map(readChain)) }
    const chained = (await client.call('PUT', `/v1/issuers/${segment(name)}/chains`, { body })).json<IssuerView>()
    out.show(chained, `${name} has ${paths.length === 1 ? 'one way' : `${paths.length} ways`} up to roots.`)
  })

  addKeyCommands(issuer)

  for (const [move, { does, done }] of Object.entries(moves))
    withRestOptions(issuer.command(`${move} <name>`).description(does))
      .option('--reason <text>', move === 'halt' ? 'why; kept on the roll, and needed' : 'why; kept on the roll')
      .action(async (name: string, options: RestOptions & { reason?: string }) => {
        const { client, out } = await openRest(options)
        const body = { move, ...(options.reason !== undefined && { reason: options.reason }) }
        const moved = await client.call('POST', `/v1/issuers/${segment(name)}/moves`, { body })
        out.show(moved.json<IssuerView>(), `${name} ${done}.`)
      })
}

const addKeyCommands = (issuer: Command): void => {
  withRestOptions(
    issuer.command('key <name>').description('where its key is; also of one that waits for its certificate'),
  ).action(async (name: string, options: RestOptions) => {
    const { client, out } = await openRest(options)
    const found = (await client.call('GET', keyPath(name))).json<KeyView>()
    out.show(found, keyText(found))
  })

  withRestOptions(
    issuer
      .command('relocate <name> <uri>')
      .description(
        'correct where its key is, as when its token has another label or serial number: it is opened there first, and must be the same',
      ),
  )
    .option('--reason <text>', 'why; kept on the roll')
    .action(async (name: string, uri: string, options: RestOptions & { reason?: string }) => {
      const { client, out } = await openRest(options)
      const body = { key: uri, ...(options.reason !== undefined && { reason: options.reason }) }
      const moved = (await client.call('PUT', keyPath(name), { body })).json<MovedKeyView>()
      const before = moved.before === moved.key ? 'It was on record there already.' : `Before: ${moved.before}`
      out.show(moved, `${keyText(moved)}\n${before}`)
    })
}

/** None for those who may see issuers, and not what is to become one. */
const readRequests = async (client: Client): Promise<readonly RequestView[]> => {
  try {
    return (await client.call('GET', requestsPath)).json<{ items: RequestView[] }>().items
  } catch (error) {
    if (error instanceof Failure && error.kind === 'denied') return []
    throw error
  }
}

const keyPath = (name: string): string => `/v1/issuers/${segment(name)}/key`

const keyText = ({ issuer, key, spki }: KeyView): string =>
  `The key of ${issuer} is at ${key}\n  SHA-256 of its public key: ${spki}`

const requestsPath = '/v1/issuer-requests'

const moves: Readonly<Record<string, { readonly does: string; readonly done: string }>> = {
  activate: {
    does: 'sign with it from now on; the active one with the same type of key retires',
    done: 'is active: every replica signs with it now',
  },
  retire: {
    does: 'sign nothing with it any more, while another one of its authority is active',
    done: 'is retiring: it signs no certificates, and may be activated again',
  },
  close: { does: 'never sign certificates with one that is retiring again', done: 'is closed: its status goes on' },
  discard: { does: 'drop one that was staged', done: 'is discarded' },
  end: { does: 'end one whose last certificate has expired', done: 'has retired' },
  halt: {
    does: 'stop one at once and for good, past every guard, as when its key is compromised',
    done: 'is halted: no replica signs with it any more. Activate another one of its authority',
  },
}

/** `O=Example Inc`, by the short name or the long one. */
const parseAttribute = (text: string): { readonly type: AttributeType; readonly value: string } => {
  const at = text.indexOf('=')
  const name = text.slice(0, at)
  const type = isAttributeType(name) ? name : byShortName.get(name)
  if (at < 1 || type === undefined) throw new Failure('usage', `${JSON.stringify(text)} is not like O="Example Inc".`)
  return { type, value: text.slice(at + 1) }
}

const byShortName = new Map(
  Object.entries(attributes).map(([type, { short }]) => [short as string, type as AttributeType]),
)

/** A chain; whoever keeps a key beside it by mistake does not send that as well. */
const readChain = async (path: string): Promise<string> => {
  const text = await readGivenText(path)
  if (isKeyMaterial(text))
    throw new Failure('usage', `${path} holds a private key; nothing was sent. Give the chain alone.`)
  if (hasBlock(text)) return text
  const bundle = bundleFault(text)
  if (bundle !== undefined) throw new Failure('usage', `${path}: ${bundle}. Nothing was sent.`)
  throw new Failure('usage', `${path} is not in PEM, and may be a key; nothing was sent. Give the chain in PEM.`)
}

const endOf = ({ certificate }: IssuerView): string => new X509Certificate(certificate).validToDate.toISOString()
