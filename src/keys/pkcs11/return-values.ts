/**
 * What a module's return values ask of us (PKCS #11 2.40, 11.1). Anything after C_Sign was called leaves it unknown
 * whether there is a signature; before that the key was not touched, and another try is safe.
 */

/**
 * `session`: this session is of no use, another may be. `token`: the token, its login or the handles of its objects are
 * gone; only a fresh start of the module finds out what is left. `pin`: trying again locks the token. `request`: the
 * module does not do what was asked, and never will.
 */
export type Remedy = 'session' | 'token' | 'pin' | 'request'

interface ReturnValue {
  readonly name: string
  readonly remedy: Remedy
}

const returnValues: Readonly<Record<number, ReturnValue>> = {
  5: { name: 'CKR_GENERAL_ERROR', remedy: 'token' },
  6: { name: 'CKR_FUNCTION_FAILED', remedy: 'token' },
  7: { name: 'CKR_ARGUMENTS_BAD', remedy: 'token' },
  16: { name: 'CKR_ATTRIBUTE_READ_ONLY', remedy: 'request' },
  18: { name: 'CKR_ATTRIBUTE_TYPE_INVALID', remedy: 'request' },
  19: { name: 'CKR_ATTRIBUTE_VALUE_INVALID', remedy: 'request' },
  48: { name: 'CKR_DEVICE_ERROR', remedy: 'token' },
  49: { name: 'CKR_DEVICE_MEMORY', remedy: 'session' },
  50: { name: 'CKR_DEVICE_REMOVED', remedy: 'token' },
  80: { name: 'CKR_FUNCTION_CANCELED', remedy: 'session' },
  96: { name: 'CKR_KEY_HANDLE_INVALID', remedy: 'token' },
  98: { name: 'CKR_KEY_SIZE_RANGE', remedy: 'request' },
  99: { name: 'CKR_KEY_TYPE_INCONSISTENT', remedy: 'request' },
  104: { name: 'CKR_KEY_FUNCTION_NOT_PERMITTED', remedy: 'request' },
  112: { name: 'CKR_MECHANISM_INVALID', remedy: 'request' },
  113: { name: 'CKR_MECHANISM_PARAM_INVALID', remedy: 'request' },
  // What SoftHSM answers when the token's files are gone or somebody else has logged out (measured).
  130: { name: 'CKR_OBJECT_HANDLE_INVALID', remedy: 'token' },
  144: { name: 'CKR_OPERATION_ACTIVE', remedy: 'session' },
  145: { name: 'CKR_OPERATION_NOT_INITIALIZED', remedy: 'session' },
  160: { name: 'CKR_PIN_INCORRECT', remedy: 'pin' },
  161: { name: 'CKR_PIN_INVALID', remedy: 'pin' },
  162: { name: 'CKR_PIN_LEN_RANGE', remedy: 'pin' },
  163: { name: 'CKR_PIN_EXPIRED', remedy: 'pin' },
  164: { name: 'CKR_PIN_LOCKED', remedy: 'pin' },
  176: { name: 'CKR_SESSION_CLOSED', remedy: 'session' },
  177: { name: 'CKR_SESSION_COUNT', remedy: 'session' },
  179: { name: 'CKR_SESSION_HANDLE_INVALID', remedy: 'session' },
  181: { name: 'CKR_SESSION_READ_ONLY', remedy: 'request' },
  208: { name: 'CKR_TEMPLATE_INCOMPLETE', remedy: 'request' },
  209: { name: 'CKR_TEMPLATE_INCONSISTENT', remedy: 'request' },
  224: { name: 'CKR_TOKEN_NOT_PRESENT', remedy: 'token' },
  225: { name: 'CKR_TOKEN_NOT_RECOGNIZED', remedy: 'token' },
  226: { name: 'CKR_TOKEN_WRITE_PROTECTED', remedy: 'request' },
  257: { name: 'CKR_USER_NOT_LOGGED_IN', remedy: 'token' },
  258: { name: 'CKR_USER_PIN_NOT_INITIALIZED', remedy: 'pin' },
  304: { name: 'CKR_DOMAIN_PARAMS_INVALID', remedy: 'request' },
  320: { name: 'CKR_CURVE_NOT_SUPPORTED', remedy: 'request' },
  336: { name: 'CKR_BUFFER_TOO_SMALL', remedy: 'request' },
  400: { name: 'CKR_CRYPTOKI_NOT_INITIALIZED', remedy: 'token' },
}

export const alreadyLoggedIn = 0x100
export const sessionCount = 0xb1
export const writeProtected = 0xe2
export const notLoggedIn = 0x101

/** Of a call that makes a key: another template may do. Modules that know no better say that something failed. */
export const mindsTemplate = (error: unknown): boolean => templateValues.has(codeOf(error))

export const isKnown = (error: unknown): boolean => codeOf(error) in returnValues

/** What a failed call asks for. What is not in the table is taken for a token that has to start afresh. */
export const judgeFailure = (error: unknown): ReturnValue & { readonly code: number } => {
  const code = codeOf(error)
  if (!Number.isInteger(code)) return { code: -1, name: (error as Error).message, remedy: 'token' }
  return { code, ...(returnValues[code] ?? { name: `CKR 0x${code.toString(16)}`, remedy: 'token' }) }
}

const templateValues: ReadonlySet<number> = new Set([5, 6, 16, 18, 19, 208, 209, 304])

/** NaN where it is no return value. pkcs11js gives it as a number, but for C_FindObjects, whose errors only say it. */
const codeOf = (error: unknown): number => {
  const { code, message } = error as { readonly code?: unknown; readonly message?: unknown }
  return Number(code ?? /^CKR_\w+:(\d+)$/.exec(String(message))?.[1])
}
