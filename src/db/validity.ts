/**
 * Whether what is valid until a notAfter has ended by a time, as `hasEnded` of `policy/validity.ts` has it: the second that it
 * names is still within (RFC 5280 4.1.2.5). The column stands alone, so that its index is entered there.
 */
export const hasEndedBy = (notAfter: string, time: string): string => `${notAfter} < date_trunc('second', ${time})`

export const isLivingAt = (notAfter: string, time: string): string => `${notAfter} >= date_trunc('second', ${time})`
