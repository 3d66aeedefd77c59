/** Issuers: how they come to be, and move from state to state. Any principal with a grant may read them. */

import { maxShards } from '../../ca/issuers/issuer-life.ts'
import { moves } from '../../ca/issuers/issuer-moves.ts'
import type { IssuerRequest, KeyPlace } from '../../ca/issuers/life.ts'
import type { IssuerRecord } from '../../ca/records.ts'
import { isProblem, Problem } from '../../errors.ts'
import { closed, Type } from '../../lib/schema.ts'
import { keyKinds } from '../../x509/algorithms.ts'
import { parsePublicKey } from '../../x509/keys.ts'
import { encodePem, parsePemCertificates } from '../../x509/pem.ts'
import { attributes, type Subject } from '../../x509/subject.ts'
import { callerOf, everyRole } from '../auth.ts'
import type { HttpDeps } from '../deps.ts'
import type { App } from '../fastify.ts'
import * as asked from './request-examples.ts'
import { formed, IssuerState, Label, named, Pem, PrincipalName, Sha256, Time } from './schemas.ts'

const Shards = Type.Integer({ minimum: 1, maximum: maxShards })

const IssuerView = Type.Object(
  {
    name: Label,
    authority: Label,
    state: IssuerState,
    since: { ...Time, description: 'when it came into this state' },
    certificate: Pem,
    chain: Type.Array(Pem, { description: 'above the issuer, the root last' }),
    otherChains: Type.Array(Type.Array(Pem), {
      description: 'other ways up, as through a cross-certificate to another root',
    }),
    shards: { ...Shards, description: 'how many lists what it revokes is cut into' },
  },
  named('Issuer'),
)

const KeyUri = formed('must be a URI that begins with pkcs11: or file:, in ASCII', {
  pattern: '^(file|pkcs11):[\\x21-\\x7e]{1,1000}$',
  maxLength: 1_010,
  examples: ['pkcs11:token=ca;object=default-2027'],
  description: 'RFC 7512, or a file: path, which begins with keys/ in the data folder, where keys may be in files',
})

const RequestView = Type.Object(
  {
    name: Label,
    authority: Label,
    key: KeyUri,
    csr: Type.String({ description: 'PEM CERTIFICATE REQUEST, for the ceremony' }),
    createdAt: Time,
    createdBy: PrincipalName,
  },
  named('IssuerRequest'),
)

const AttributeView = Type.Object(
  {
    type: Type.Enum(Object.keys(attributes) as (keyof typeof attributes)[]),
    value: Type.String({ minLength: 1, maxLength: 256 }),
  },
  named('SubjectAttribute'),
)

const NewRequest = Type.Object(
  {
    name: { ...Label, description: 'of the issuer that is to be' },
    authority: { ...Label, description: 'there already, or new' },
    subject: Type.Array(AttributeView, { minItems: 1, maxItems: 16 }),
    algorithm: Type.Optional(
      Type.Enum([...keyKinds], { description: 'of the key; ec-p256 by default, and rsa has 3072 bits' }),
    ),
    key: Type.Optional(KeyUri),
  },
  named('NewIssuerRequest', asked.issuerRequest),
)

const Chain = Type.String({
  minLength: 1,
  maxLength: 49_152,
  description: 'PEM CERTIFICATE blocks: the issuer, those above it, its root last',
})

const Reason = formed('must have more than blanks, no NUL, and no halves of characters', {
  pattern: '^\\s*[^\\s\\u0000\\uD800-\\uDFFF][^\\u0000\\uD800-\\uDFFF]*$',
  maxLength: 1_000,
  description: 'kept on the roll',
})

const keyMembers = { issuer: Label, key: KeyUri, spki: { ...Sha256, description: 'of its SubjectPublicKeyInfo' } }
const KeyView = Type.Object(keyMembers, named('IssuerKey'))
const MovedKeyView = Type.Object(
  { ...keyMembers, before: { ...KeyUri, description: 'where it was' } },
  named('MovedIssuerKey'),
)

const tags = ['authorities']
const ByName = Type.Object({ name: { ...Label, examples: ['default'] } }, closed)

export const issuerRoutes = (app: App, deps: HttpDeps): void => {
  readRoutes(app, deps)
  requestRoutes(app, deps)
  moveRoutes(app, deps)
  chainsRoute(app, deps)
  keyRoutes(app, deps)
}

const readRoutes = (app: App, { issuerLife }: HttpDeps): void => {
  app.get(
    '/v1/issuers',
    {
      config: { access: [...everyRole] },
      schema: {
        operationId: 'listIssuers',
        summary: 'List issuers',
        description: 'Of all authorities and in every state, the oldest first, each with its ways up to a root.',
        tags,
        response: { 200: Type.Object({ items: Type.Array(IssuerView) }, closed) },
      },
    },
    async () => ({ items: (await issuerLife.issuers()).map(issuerView) }),
  )

  app.get(
    '/v1/issuers/:name',
    {
      config: { access: [...everyRole], problems: ['issuer.not_found'] },
      schema: {
        operationId: 'readIssuer',
        summary: 'Read one issuer',
        description:
          'With its state, its certificate, and its ways up to a root. Where its key is, `GET /v1/issuers/{name}/key` tells.',
        tags,
        params: ByName,
        response: { 200: IssuerView },
      },
    },
    async (request) => {
      const issuer = (await issuerLife.issuers()).find(({ name }) => name === request.params.name)
      if (!issuer) throw new Problem('issuer.not_found', 'There is no issuer with this name.')
      return issuerView(issuer)
    },
  )
}

const requestRoutes = (app: App, { issuerLife }: HttpDeps): void => {
  app.post(
    '/v1/issuer-requests',
    {
      config: {
        access: ['admin'],
        accepts: ['application/json'],
        problems: ['state.exists', 'issuer.token', 'key.unavailable', 'subject.syntax'],
      },
      schema: {
        operationId: 'requestIssuer',
        summary: 'Make the key of a new issuer, and a request for its certificate',
        description:
          'The key never leaves its token. Have the request signed by the root in a ceremony, and import what comes back with `PUT /v1/issuers/{name}`. A key that is there at the URI already is taken, if it is of the type that is asked for, and neither another issuer’s nor the roll’s.',
        tags,
        body: NewRequest,
        response: { 201: { ...RequestView, description: 'Made' } },
      },
    },
    async (request, reply) => {
      const { name, authority, subject, algorithm = 'ec-p256', key: keyUri = `file:keys/${name}.pem` } = request.body
      const ask = { name, authority, subject: subject as Subject, algorithm, keyUri }
      const made = await issuerLife.request(ask, callerOf(request).principal)
      reply.code(201)
      return requestView(made)
    },
  )

  app.get(
    '/v1/issuer-requests',
    {
      config: { access: ['admin', 'operator', 'auditor'] },
      schema: {
        operationId: 'listIssuerRequests',
        summary: 'List the keys that were made for issuers, with their requests',
        description: 'The oldest first, also of issuers that have been imported since.',
        tags,
        response: { 200: Type.Object({ items: Type.Array(RequestView) }, closed) },
      },
    },
    async () => ({ items: (await issuerLife.requests()).map(requestView) }),
  )
}

const moveRoutes = (app: App, { issuerLife }: HttpDeps): void => {
  app.put(
    '/v1/issuers/:name',
    {
      config: {
        access: ['admin'],
        accepts: ['application/json'],
        problems: ['issuer.not_found', 'issuer.key', 'issuer.chain', 'state.exists'],
      },
      schema: {
        operationId: 'importIssuer',
        summary: 'Import the certificate of an issuer, with the chain above it',
        description:
          'For the key that `POST /v1/issuer-requests` made. The issuer is staged: its chain is published, and it signs nothing yet.',
        tags,
        params: ByName,
        body: Type.Object(
          {
            chain: Chain,
            shards: Type.Optional({
              ...Shards,
              description:
                'how many lists what it revokes is cut into, for good; 128 by default. 1: one list of the whole issuer, without an issuingDistributionPoint, for relying parties that know nothing of it',
            }),
          },
          named('NewIssuer', asked.issuer),
        ),
        response: { 201: { ...IssuerView, description: 'Staged' } },
      },
    },
    async (request, reply) => {
      const chain = readChain(request.body.chain, '/chain')
      const { shards } = request.body
      const certified = { chain, ...(shards !== undefined && { shards }) }
      const issuer = await issuerLife.stage(request.params.name, certified, callerOf(request).principal)
      reply.code(201)
      return issuerView(issuer)
    },
  )

  app.post(
    '/v1/issuers/:name/moves',
    {
      config: {
        access: ['admin'],
        accepts: ['application/json'],
        problems: ['issuer.not_found', 'issuer.state', 'clock.skewed'],
      },
      schema: {
        operationId: 'moveIssuer',
        summary: 'Move an issuer from one state to another',
        description:
          '`activate`: it signs, and the active one with the same type of key retires. `retire`: it signs no more, and may be activated again. `close`: it never will. `end`: its last certificate has expired. `discard`: it was staged, and is not wanted. `halt`: at once and past every guard, it never signs again; needs a reason.',
        tags,
        params: ByName,
        body: Type.Object(
          {
            move: Type.Enum([...moves]),
            reason: Type.Optional(Reason),
          },
          named('IssuerMove', asked.move),
        ),
        response: { 200: IssuerView },
      },
    },
    async (request) => {
      const { move, reason = null } = request.body
      if (move === 'halt' && reason === null) throw reasonless()
      return issuerView(await issuerLife.move(request.params.name, move, { reason, by: callerOf(request).principal }))
    },
  )
}

const chainsRoute = (app: App, { issuerLife }: HttpDeps): void => {
  app.put(
    '/v1/issuers/:name/chains',
    {
      config: {
        access: ['admin'],
        accepts: ['application/json'],
        problems: ['issuer.not_found', 'issuer.chain', 'issuer.state'],
      },
      schema: {
        operationId: 'chainIssuer',
        summary: 'Bring the ways up from an issuer to roots, in place of those that it has',
        description:
          'For a cross-certificate, which comes later than the issuer, and goes before it. All that is above the issuer on any of the ways is sent along with what it signs, but for the roots; the roots of all ways are in `bundle?anchors=roots`.',
        tags,
        params: ByName,
        body: Type.Object(
          { chains: Type.Array(Chain, { minItems: 1, maxItems: 4 }) },
          named('NewChains', asked.chains),
        ),
        response: { 200: IssuerView },
      },
    },
    async (request) => {
      const chains = request.body.chains.map((chain, i) => readChain(chain, `/chains/${i}`))
      return issuerView(await issuerLife.chain(request.params.name, chains, callerOf(request).principal))
    },
  )
}

const keyRoutes = (app: App, { issuerLife }: HttpDeps): void => {
  app.get(
    '/v1/issuers/:name/key',
    {
      config: { access: ['admin', 'operator', 'auditor'], problems: ['issuer.not_found'] },
      schema: {
        operationId: 'readIssuerKey',
        summary: 'Read where the key of an issuer is',
        description: 'Also of one that still waits for its certificate.',
        tags,
        params: ByName,
        response: { 200: KeyView },
      },
    },
    async (request) => keyView(await issuerLife.place(request.params.name)),
  )

  app.put(
    '/v1/issuers/:name/key',
    {
      config: {
        access: ['admin'],
        accepts: ['application/json'],
        problems: ['issuer.not_found', 'issuer.key_place', 'issuer.state', 'issuer.token'],
      },
      schema: {
        operationId: 'relocateIssuerKey',
        summary: 'Correct where the key of an issuer is',
        description:
          'For a token that is called otherwise now, is reached through another module, or was replaced by one that holds its copy. The key is opened there first, and must be the very key, and sign; then every instance follows. Who has said so, and why, is on the roll.',
        tags,
        params: ByName,
        body: Type.Object({ key: KeyUri, reason: Type.Optional(Reason) }, named('IssuerKeyMove', asked.issuerKey)),
        response: { 200: MovedKeyView },
      },
    },
    async (request) => {
      const { key: keyUri, reason = null } = request.body
      const moved = await issuerLife.relocate(request.params.name, {
        ...{ keyUri, reason, by: callerOf(request).principal },
      })
      return { ...keyView(moved), before: moved.before }
    },
  )
}

const readChain = (text: string, field: string): readonly Buffer[] => {
  try {
    return parsePemCertificates(text, maxChain)
  } catch (error) {
    if (!isProblem(error)) throw error
    throw new Problem('issuer.chain', error.detail, {
      violations: [{ check: 'chain.pem', field, value: '', reason: error.detail }],
    })
  }
}

const reasonless = (): Problem =>
  new Problem('request.malformed', '/reason: a halt needs a reason.', {
    violations: [{ check: 'issuer.reason', field: '/reason', value: '', reason: 'a halt needs one' }],
  })

/** Issuers are never deleted: one that there is not never signed anything, and its name is a mistake. Throws `issuer.not_found`. */
export const assertIssuer = async (
  { records, issuerLife }: Pick<HttpDeps, 'records' | 'issuerLife'>,
  name: string,
): Promise<void> => {
  const isThis = (issuer: IssuerRecord): boolean => issuer.name === name
  // What was read a moment ago lacks one that was made since.
  if (!(await records.issuers()).some(isThis) && !(await issuerLife.issuers()).some(isThis))
    throw new Problem('issuer.not_found', 'There is no issuer with this name.')
}

const issuerView = ({ name, authority, state, since, certificate, chain, otherChains = [], shards }: IssuerRecord) => ({
  name,
  authority,
  state,
  since: since.toISOString(),
  certificate: encodePem('CERTIFICATE', certificate),
  chain: pemOf(chain),
  otherChains: otherChains.map(pemOf),
  shards,
})

const keyView = ({ name, keyUri, spki }: KeyPlace) => ({
  issuer: name,
  key: keyUri,
  spki: parsePublicKey(spki).sha256.toString('hex'),
})

const pemOf = (chain: readonly Buffer[]): string[] => chain.map((der) => encodePem('CERTIFICATE', der))

const requestView = ({ name, authority, keyUri, csr, createdAt, createdBy }: IssuerRequest) => ({
  name,
  authority,
  key: keyUri,
  csr: encodePem('CERTIFICATE REQUEST', csr),
  createdAt: createdAt.toISOString(),
  createdBy,
})

/** RFC 5280 knows no bound; nobody has more than a few. */
const maxChain = 8
