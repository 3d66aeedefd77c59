/** Objects of a token, by the label and the id that a URI says. */
import type { Handle } from 'pkcs11js'

import { cka, cko } from './mechanisms.ts'
import type { Token } from './module.ts'
import type { ReadAttribute } from './public-key.ts'
import { judgeFailure } from './return-values.ts'
import { KeyExists, TokenFault } from './token-fault.ts'
import type { Pkcs11Uri } from './uri.ts'

export type Template = readonly { readonly type: number; readonly value: Buffer | number | boolean }[]

export const privateTemplate = ({ object, id }: Pkcs11Uri): Template => [
  { type: cka.class, value: cko.privateKey },
  ...(object === undefined ? [] : [{ type: cka.label, value: Buffer.from(object) }]),
  ...(id === undefined ? [] : [{ type: cka.id, value: id }]),
]

export const findObjects = ({ lib }: Token, session: Handle, template: Template): readonly Handle[] => {
  lib.C_FindObjectsInit(session, [...template])
  try {
    return lib.C_FindObjects(session, 2)
  } finally {
    lib.C_FindObjectsFinal(session)
  }
}

export const theOne = ({ label }: Token, handles: readonly Handle[], what: string): Handle => {
  const [only, second] = handles
  if (only === undefined) throw new TokenFault('request', `The token ${label} has no ${what}.`)
  if (second !== undefined)
    throw new TokenFault(
      'request',
      `The token ${label} has more than one ${what}: name it by its id as well, or give the other one another label.`,
    )
  return only
}

/** Whoever is named by a label or an id alone would mean two keys from then on, and not open again. */
export const assertFree = (token: Token, session: Handle, label: string, id: Buffer | undefined): void => {
  const isTaken = (ofClass: number, by: Template[number]): boolean =>
    findObjects(token, session, [{ type: cka.class, value: ofClass }, by]).length > 0
  const there = `The token ${token.label} has a key`
  if (isTaken(cko.privateKey, { type: cka.label, value: Buffer.from(label) }))
    throw new KeyExists(`${there} ${label} already; a key is never overwritten.`)
  if (!id?.length) return
  // The public half is found by the id as well: one that was left of another pair would be a second one.
  const byId = { type: cka.id, value: id }
  if (isTaken(cko.privateKey, byId) || isTaken(cko.publicKey, byId))
    throw new KeyExists(
      `${there} with the id ${id.toString('hex')} already; a key is never overwritten: leave the id out, or name another.`,
    )
}

/**
 * Nothing keeps others from making a key of this name between our look and ours: two would never open. Whoever sees the
 * other one takes away what it made itself, which has signed nothing; where both do, neither is left, and the next try has one.
 */
export const keepAlone = (token: Token, session: Handle, { label, id, made }: NewPair): void => {
  const isAlone = [
    { type: cka.label, value: Buffer.from(label) },
    { type: cka.id, value: id },
  ].every((by) => findObjects(token, session, [{ type: cka.class, value: cko.privateKey }, by]).length < 2)
  if (isAlone) return
  const told = `Somebody else made a key ${label} in the token ${token.label} at the same time, and ours`
  try {
    takeAway(token, session, made)
  } catch (cause) {
    const { name } = judgeFailure(cause)
    throw new TokenFault(
      'request',
      `${told}, with the id ${id.toString('hex')}, cannot be taken away (${name}): take it away, or neither opens.`,
      cause,
    )
  }
  throw new TokenFault('session', `${told} was taken away again.`)
}

export const takeAway = ({ lib }: Token, session: Handle, { privateKey, publicKey }: Pair): void => {
  for (const half of [privateKey, publicKey]) lib.C_DestroyObject(session, half)
}

export interface Pair {
  readonly privateKey: Handle
  readonly publicKey: Handle
}

interface NewPair {
  readonly label: string
  readonly id: Buffer
  readonly made: Pair
}

export const nameOf = ({ object, id }: Pkcs11Uri): string =>
  [object ?? '', id?.length ? `with the id ${id.toString('hex')}` : ''].filter((part) => part !== '').join(' ')

/** Reads attributes of one; undefined where its module has none of that kind, or does not show it. */
export const reader =
  ({ lib }: Token, session: Handle, object: Handle): ReadAttribute =>
  (type) => {
    try {
      const value = lib.C_GetAttributeValue(session, object, [{ type }])[0]?.value
      return Buffer.isBuffer(value) && value.length > 0 ? value : undefined
    } catch (error) {
      const { code } = judgeFailure(error)
      if (code === attributeTypeInvalid || code === attributeSensitive) return undefined
      throw error
    }
  }

const attributeSensitive = 0x11
const attributeTypeInvalid = 0x12
