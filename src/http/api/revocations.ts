/** Revoking many at once: the plan of a search, the order by its digest, and how far it has come. */
import type { FastifyReply } from 'fastify'

import {
  type AsOf,
  type MassAsk,
  type MassOrder,
  type MassPlan,
  type Shares,
  searchWords,
} from '../../ca/revocation/mass-revocation.ts'
import { revocationReasons } from '../../ca/revocation/revoke.ts'
import { closed, type Static, Type } from '../../lib/schema.ts'
import { callerOf } from '../auth.ts'
import { withinDeadline } from '../deadline.ts'
import type { HttpDeps } from '../deps.ts'
import type { App } from '../fastify.ts'
import { columnsOf } from './csv.ts'
import { assertIssuer } from './issuers.ts'
import { listTypes, pageOf, sendPage } from './page.ts'
import * as asked from './request-examples.ts'
import { formed, Label, named, PageQuery, PrincipalName, pageOfRows, RowText, Serial, Sha256, Time } from './schemas.ts'
import { parseInvalidity, parseSerial, parseSought, parseTime, spansOf, timeOrNull } from './views.ts'

const Count = Type.Integer({ minimum: 0 })
const Reason = Type.Enum([...revocationReasons], { description: 'RFC 5280 5.3.1' })
const AsOfText = formed('must be `asOf` of the plan that you were shown', {
  pattern: '^(0|[1-9][0-9]{0,14})@[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?Z$',
  maxLength: 48,
  description: 'the size of the roll, and the time, as of which the plan was made',
})

/** As origins have them: no control characters, no halves of characters. */
const OriginText = formed('must have no control characters and no halves of characters', {
  minLength: 1,
  maxLength: 512,
  pattern: '^[^\\u0000-\\u001F\\uD800-\\uDFFF]+$',
})
const MassOriginSearch = {
  originNamespace: Type.Optional({ ...OriginText, description: 'on behalf of this namespace' }),
  originUser: Type.Optional({ ...OriginText, description: 'on behalf of this user' }),
  originObject: Type.Optional({ ...OriginText, description: 'for the object of this UID' }),
}

const SearchBody = Type.Object(
  {
    profile: Type.Optional(Label),
    name: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 2048,
        // Whatever a certificate can be searched by: no control characters, no halves of characters.
        pattern: '^[^\\u0000-\\u001F\\uD800-\\uDFFF]+$',
        description:
          'this very name, as it is or with its kind before it (dns:*.example.com is that wildcard name, which no other exact name takes); or *.suffix for every DNS name below it',
      }),
    ),
    principal: Type.Optional(PrincipalName),
    issuer: Type.Optional(Label),
    row: Type.Optional(RowText),
    key: Type.Optional(Sha256),
    issuedAfter: Type.Optional(Time),
    issuedBefore: Type.Optional(Time),
    expiresAfter: Type.Optional(Time),
    expiresBefore: Type.Optional(Time),
    ...MassOriginSearch,
  },
  { ...named('RevocationSearch'), minProperties: 1, description: 'what they have in common: all that is said' },
)

const NewRevocations = Type.Object(
  {
    search: SearchBody,
    reason: Reason,
    invalidityDate: Type.Optional({
      ...Time,
      description: 'since when their keys may have been in wrong hands; in whole seconds',
    }),
    digest: Type.Optional({ ...Sha256, description: 'of the plan that is to be carried out; left out: plan only' }),
    asOf: Type.Optional(AsOfText),
  },
  named('NewRevocations', asked.revocations),
)

const SharesView = Type.Object(
  {
    items: Type.Array(Type.Object({ name: Type.String(), count: Count }, named('Share'))),
    others: Type.Object({ names: Count, count: Count }, closed),
  },
  { ...named('Shares'), description: 'the largest first; others are those beyond the bound of twenty' },
)

const SkippedView = Type.Object(
  { expired: Count, revoked: Count },
  {
    ...named('Skipped'),
    description:
      'what the search finds and is left alone: expired (a plan counts up to 100,000 of these), or revoked in a way that the reason does not replace. Of an order: since it was planned',
  },
)

const PlanView = Type.Object(
  {
    digest: { ...Sha256, description: 'what to call again with, to have exactly this done' },
    asOf: AsOfText,
    search: SearchBody,
    reason: Reason,
    invalidityDate: Type.Optional(Time),
    count: Type.Integer({ minimum: 0, description: 'how many would be revoked' }),
    byProfile: SharesView,
    byPrincipal: SharesView,
    byIssuer: SharesView,
    crlGrowth: Type.Array(
      Type.Object({ issuer: Label, entries: Count, octets: Count, shards: Count }, named('CrlGrowth')),
      { description: 'of those on no list yet: entries and octets, and how many lists of the issuer grow' },
    ),
    skipped: SkippedView,
    sample: Type.Array(Serial, { description: 'the newest few' }),
  },
  named('RevocationPlan'),
)

const OrderView = Type.Object(
  {
    digest: Sha256,
    state: Type.Enum(['running', 'done']),
    search: SearchBody,
    reason: Reason,
    invalidityDate: Type.Optional(Time),
    by: PrincipalName,
    index: Type.Integer({ description: 'place of the order on the roll' }),
    total: Count,
    revoked: Count,
    skipped: SkippedView,
    orderedAt: Time,
    startedAt: Type.Union([Time, Type.Null()]),
    finishedAt: Type.Union([Time, Type.Null()]),
  },
  named('RevocationOrder'),
)

const columns = columnsOf(Object.keys(OrderView.properties))

const tags = ['revocation']

export const massRevocationRoutes = (app: App, deps: HttpDeps): void => {
  planRoute(app, deps)
  orderRoutes(app, deps)
}

const planRoute = (app: App, deps: HttpDeps): void => {
  app.post(
    '/v1/revocations',
    {
      config: {
        access: ['operator'],
        accepts: ['application/json'],
        ownDeadline: true,
        problems: [
          'profile.not_found',
          'principal.not_found',
          'issuer.not_found',
          'certificate.not_found',
          'revocation.plan',
          'revocation.too_many',
          'clock.skewed',
        ],
        tells: { Location: [202], 'Retry-After': [202] },
      },
      schema: {
        operationId: 'revokeMany',
        summary: 'Plan to revoke many certificates, and order it',
        description:
          'Without `digest`: what would be done, exactly; nothing is recorded. With the `digest` of a plan: that is ordered, durably, and carried out from then on; the same call again finds the same order. With the `asOf` of the plan, certificates that were issued since are left alone, and what changed since is passed by and counted. Without it, any certificate that was issued, revoked or has expired since makes it another plan (409). Only what is not expired, and not revoked already in a way that the reason does not replace, is in a plan; CA certificates never are.',
        tags,
        body: NewRevocations,
        response: {
          200: { ...PlanView, description: 'The plan' },
          202: { ...OrderView, description: 'Ordered' },
        },
      },
    },
    async (request, reply) => {
      const { digest, asOf: text } = request.body
      const ask = askOf(request.body)
      const asOf = text === undefined ? undefined : parseAsOf(text)
      await withinDeadline(assertKnown(deps, ask))
      if (digest === undefined) return planView(await withinDeadline(deps.massRevocations.plan(ask, asOf)))
      const plan = { digest, ...(asOf && { asOf }) }
      const by = callerOf(request).principal
      const order = await withinDeadline(deps.massRevocations.order(ask, plan, by))
      reply.code(202).header('location', `/v1/revocations/${digest}`).headers(waitOf(order))
      return orderView(order) as never
    },
  )
}

const orderRoutes = (app: App, { massRevocations }: HttpDeps): void => {
  app.get(
    '/v1/revocations',
    {
      config: {
        access: ['operator', 'auditor', 'admin'],
        offers: listTypes,
        columns,
        ownDeadline: true,
        problems: ['request.cursor', 'request.not_acceptable', 'overload.queue'],
      },
      schema: {
        operationId: 'listRevocations',
        summary: 'List the orders to revoke many, newest first',
        description: 'Each as far as it has come. A page at a time in every form: a Link header leads to the next.',
        tags,
        querystring: Type.Object(PageQuery, closed),
        response: { 200: pageOfRows(OrderView) },
      },
    },
    async (request, reply) => {
      const { items, ...rest } = await withinDeadline(massRevocations.list(pageOf(request.query)))
      return sendPage(request, reply as FastifyReply, { items: items.map(orderView), columns, ...rest })
    },
  )

  app.get(
    '/v1/revocations/:digest',
    {
      config: {
        access: ['operator', 'auditor', 'admin'],
        problems: ['revocation.not_found'],
        tells: { 'Retry-After': [200] },
      },
      schema: {
        operationId: 'readRevocations',
        summary: 'Read how far an order to revoke many has come',
        description:
          'By the digest of its plan: how many there are to be revoked, how many have been, and what was passed over.',
        tags,
        params: Type.Object({ digest: Sha256 }, closed),
        response: { 200: OrderView },
      },
    },
    async (request, reply) => {
      const order = await massRevocations.read(request.params.digest)
      reply.headers(waitOf(order))
      return orderView(order)
    },
  )
}

/** Whoever mistyped a name must not take "none" for an answer. */
const assertKnown = async (deps: HttpDeps, { search }: MassAsk): Promise<void> => {
  const { policies, access, records } = deps
  const { profile, principal, issuer, row } = search
  if (profile !== undefined && !policies.current(profile)) await policies.read(profile)
  if (principal !== undefined) await access.readPrincipal(principal)
  if (issuer !== undefined) await assertIssuer(deps, issuer)
  if (row !== undefined) await records.certificate(row)
}

const askOf = ({ search, reason, invalidityDate }: Static<typeof NewRevocations>): MassAsk => {
  const { row, name, issuedAfter, issuedBefore, expiresAfter, expiresBefore, ...exact } = search
  const times = { issuedAfter, issuedBefore, expiresAfter, expiresBefore }
  return {
    search: {
      ...exact,
      ...(row !== undefined && { row: parseSerial(row) }),
      ...(name !== undefined && { name: parseSought(name, '/search/name') }),
      ...spansOf(times, ['issued', 'expires'], '/search'),
    },
    reason,
    invalidSince: parseInvalidity(invalidityDate),
  }
}

const parseAsOf = (text: string): AsOf => {
  const at = text.indexOf('@')
  return { size: Number(text.slice(0, at)), time: parseTime(text.slice(at + 1), '/asOf') }
}

const planView = ({ asOf, reason, invalidSince, ...plan }: MassPlan) => ({
  digest: plan.digest,
  asOf: `${asOf.size}@${asOf.time.toISOString()}`,
  search: searchWords(plan.search),
  reason,
  ...(invalidSince && { invalidityDate: invalidSince.toISOString() }),
  count: plan.count,
  byProfile: sharesView(plan.byProfile),
  byPrincipal: sharesView(plan.byPrincipal),
  byIssuer: sharesView(plan.byIssuer),
  crlGrowth: [...plan.crlGrowth],
  skipped: plan.skipped,
  sample: [...plan.sample],
})

const sharesView = ({ items, others }: Shares) => ({ items: [...items], others })

/** It comes further each second (RFC 9110 10.2.3); nothing more comes of one that is done. */
const waitOf = ({ finishedAt }: MassOrder): Readonly<Record<string, string>> =>
  finishedAt === null ? { 'retry-after': '1' } : {}

const orderView = ({ digest, search, reason, invalidSince, skipped, ...order }: MassOrder) => ({
  digest,
  state: order.finishedAt === null ? ('running' as const) : ('done' as const),
  search,
  reason,
  ...(invalidSince && { invalidityDate: invalidSince.toISOString() }),
  by: order.by,
  index: order.index,
  total: order.total,
  revoked: order.revoked,
  skipped,
  orderedAt: order.orderedAt.toISOString(),
  startedAt: timeOrNull(order.startedAt),
  finishedAt: timeOrNull(order.finishedAt),
})
