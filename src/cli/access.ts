/** `chancery principal`, `grant` and `token`: who may ask. */
import type { Command } from 'commander'

import { type Client, segment } from '../client/rest.ts'
import { Failure } from '../lib/failure.ts'
import { openOutput, visible } from '../lib/output.ts'
import { limitNames } from '../policy/limits.ts'
import { addListByPrincipal, addRevokeById, openRest, type RestOptions, withRestOptions } from './rest.ts'
import { keepSecret } from './secret-file.ts'
import type { LoadSettings } from './with-records.ts'

export const addPrincipalCommand = (program: Command): void => {
  const principal = program.command('principal').description('who may ask')

  withRestOptions(principal.command('create <name>').description('create a principal')).action(
    async (name: string, options: RestOptions) => {
      const { client, out } = await openRest(options)
      const made = await client.call('POST', '/v1/principals', { body: { name } })
      out.show(made.json(), `${name} is a principal now; give it a grant and a token.`)
    },
  )

  withRestOptions(principal.command('list').description('list principals')).action(async (options: RestOptions) => {
    const { client, out } = await openRest(options)
    const { items } = (await client.call('GET', '/v1/principals')).json<{ items: Record<string, unknown>[] }>()
    out.table(items, ['name', 'createdAt', 'createdBy', 'disabledAt'])
  })

  withRestOptions(principal.command('disable <name>').description('close a principal for good')).action(
    async (name: string, options: RestOptions) => {
      const { client, out } = await openRest(options)
      await client.call('DELETE', `/v1/principals/${segment(name)}`)
      const left = `Its certificates hold until they are revoked: chancery revoke-many --principal ${name}`
      out.show({ name, disabled: true }, `${name} is closed; its tokens stop working within two seconds. ${left}`)
    },
  )
}

interface GrantOptions extends RestOptions {
  readonly profile?: string[]
  readonly names?: string
  readonly revoke?: boolean
  readonly limit?: string[]
  readonly onBehalfOf?: string | true
  readonly sharedKeys?: boolean
}

export const addGrantCommand = (program: Command): void => {
  const grant = program.command('grant').description('what a principal may do')

  withRestOptions(
    grant
      .command('create <principal> <role>')
      .description('let a principal act as requester, approver, operator, auditor or admin'),
  )
    .option('--profile <name...>', 'for a requester: which profiles; for an approver: whose requests it approves')
    .option(
      '--names <json>',
      `for a requester: narrower name rules for dns, ip, uri, email and commonName, like ${namesForm}`,
    )
    .option('--revoke', 'for a requester: it may revoke its own certificates of these profiles')
    .option('--shared-keys', 'for a requester: certificates of these profiles may have keys that belong to another')
    .option(
      '--on-behalf-of [json]',
      `for a requester: it may ask on behalf of others, perhaps by rules like ${originForm}`,
    )
    .option('--limit <name=number...>', `how much at most: ${limitNames.join(', ')}`)
    .action(async (principal: string, role: string, options: GrantOptions) => {
      const { client, out } = await openRest(options)
      const body = {
        principal,
        role,
        ...(options.profile && { profiles: options.profile }),
        ...(options.names !== undefined && { names: parseRules('--names', options.names, namesForm) }),
        ...(options.revoke && { revoke: true }),
        ...(options.sharedKeys && { sharedKeys: true }),
        ...(options.onBehalfOf !== undefined && { onBehalfOf: originRulesOf(options.onBehalfOf) }),
        ...(options.limit && { limits: parseLimits(options.limit) }),
      }
      const answer = await client.call('POST', '/v1/grants', { body })
      const grant = answer.json<Grant>()
      const since = answer.status === 201 ? 'now' : 'already'
      const idle =
        role === 'approver' && !options.profile ? ' It names no profile, so there is nothing to approve.' : ''
      const wider = await besides(client, grant).catch(() => [])
      out.show(grant, [`${principal} may act as ${role} ${since} (grant ${grant.id}).${idle}`, ...wider].join('\n'))
    })

  addListByPrincipal(grant, { about: 'list grants', path: '/v1/grants', columns: grantColumns })
  addRevokeById(grant, 'take a grant back', '/v1/grants', (id) => `Grant ${id} is revoked.`)
}

interface Grant {
  readonly id: string
  readonly principal: string
  readonly role: string
  readonly profiles: readonly string[] | null
}

/** A second grant narrows nothing: each allows by itself. */
const besides = async (client: Client, { id, principal, role, profiles }: Grant): Promise<readonly string[]> => {
  if (role !== 'requester') return []
  const { items } = (await client.call('GET', '/v1/grants', { query: { principal } })).json<{ items: Grant[] }>()
  return items
    .filter((other) => other.id !== id && other.role === role)
    .map((other) => ({ id: other.id, shared: other.profiles?.filter((name) => profiles?.includes(name)) ?? [] }))
    .filter(({ shared }) => shared.length > 0)
    .map(
      ({ id, shared }) =>
        `Its grant ${id} for ${shared.join(', ')} holds beside it: what one of them allows is allowed, within the limits of both; to take that one back: chancery grant revoke ${id}`,
    )
}

export const addTokenCommand = (program: Command, settings: LoadSettings): void => {
  const token = program.command('token').description('bearer tokens of principals')

  withRestOptions(token.command('create <principal>').description('make a token; its secret is told this once'))
    .requiredOption('--label <text>', 'what it is for')
    .option('--expires-at <time>', 'RFC 3339; never by default')
    .option('--out <file>', 'a new file for its secret, which is printed by default')
    .action(async (principal: string, options: RestOptions & TokenOptions) => {
      const { client, out } = await openRest(options)
      const { label, expiresAt, out: file } = options
      const body = { principal, label, ...(expiresAt !== undefined && { expiresAt }) }
      const make = async () => (await client.call('POST', '/v1/tokens', { body })).json<MadeToken>()
      if (file === undefined) {
        const made = await make()
        return out.show(made, made.secret)
      }
      const withdraw = ({ id }: MadeToken) => client.call('DELETE', `/v1/tokens/${segment(id)}`)
      const made = await keepSecret({ file }, { make, withdraw })
      out.show({ ...made, file }, `${visible(file)} lets its bearer in as ${principal}. It is the token ${made.id}.`)
    })

  addListByPrincipal(token, {
    about: 'list tokens, never their secrets',
    path: '/v1/tokens',
    columns: ['id', 'principal', 'label', 'createdAt', 'expiresAt', 'revokedAt', 'lastUsedAt'],
  })
  addRevokeById(
    token,
    'revoke a token',
    '/v1/tokens',
    (id) => `Token ${id} is revoked; it stops working within two seconds.`,
  )
  addTokenRecover(token, settings)
}

/** Works on the database: without a token the API accepts no call. */
const addTokenRecover = (token: Command, settings: LoadSettings): void => {
  token
    .command('recover [principal]')
    .description('where every token of every administrator is lost: make one beside the database, which soon ends')
    .option('--duration <time>', 'how long it works: 1m to 24h', '1h')
    .option('--out <file>', 'where it goes; <data>/admin.token by default')
    .option('--json', 'print JSON for machines', false)
    .action(async (principal: string | undefined, { json, ...options }: RecoverOptions) => {
      const [{ runTokenRecover, recoveredTokenText }, { config, log }] = [
        await import('./token-recover.ts'),
        await settings(),
      ]
      const made = await runTokenRecover(config, log, { principal, ...options })
      openOutput(json).show(made, recoveredTokenText(made))
    })
}

interface TokenOptions {
  readonly label: string
  readonly expiresAt?: string
  readonly out?: string
}

interface MadeToken {
  readonly id: string
  readonly secret: string
}

interface RecoverOptions {
  readonly duration: string
  readonly out?: string
  readonly json: boolean
}

const grantColumns = [
  'id',
  'principal',
  'role',
  'profiles',
  'names',
  'revoke',
  'limits',
  'onBehalfOf',
  'sharedKeys',
  'createdAt',
  'createdBy',
]

/** What a name means, and how large its number may be, the service says. */
const parseLimits = (texts: readonly string[]): Readonly<Record<string, number>> =>
  Object.fromEntries(
    texts.map((text) => {
      const [, name = '', digits] = /^(\w+)=(\d{1,10})$/.exec(text) ?? []
      if (digits === undefined) throw new Failure('usage', `--limit ${text} is not a name, = and a whole number.`)
      return [name, Number(digits)]
    }),
  )

const namesForm = '{"dns":{"allow":["*.example.com"]}}'
const originForm = '{"required":true,"namespaces":{"allow":["shop"]}}'

const originRulesOf = (given: string | true): unknown =>
  given === true ? {} : parseRules('--on-behalf-of', given, originForm)

const parseRules = (option: string, text: string, form: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    throw new Failure('usage', `${option} is not JSON. It is like '${form}'.`)
  }
}
