import type { Curve } from './algorithms.ts'
import type { DerReader } from './der.ts'
export const assertCurvePoint = (_key: DerReader, _curve: Curve): void => {}
export const assertEd25519Point = (_key: DerReader): void => {}
