/** RFC 7512: where a key is, in a URI that may be stored and shown. A PIN never stands in it, only the file that has it. */

export interface Pkcs11Uri {
  /** Of the token: by label, serial number, or both; never by slot, whose numbers change. */
  readonly token?: string
  readonly serial?: string
  /** What else the token must say of itself. */
  readonly manufacturer?: string
  readonly model?: string
  /** Of the key: by label, by id, or both. */
  readonly object?: string
  readonly id?: Buffer
  /** The library. Absent: the configured one. */
  readonly modulePath?: string
  /** The file with the PIN. Absent: the configured one. */
  readonly pinSource?: string
  /** How the key signs, by its id in our table; absent: as keys of its kind usually do. A vendor attribute of ours. */
  readonly signature?: string
}

/** Throws a sentence for what RFC 7512 does not allow, and for what Chancery does not: PINs and slot numbers. */
export const parsePkcs11Uri = (text: string): Pkcs11Uri => {
  if (!text.startsWith('pkcs11:')) throw new Error(`${text} is not a pkcs11: URI (RFC 7512).`)
  const [path = '', query = ''] = splitOnce(text.slice('pkcs11:'.length), '?')
  const found = new Map([...attributesOf(path, ';', pathAttributes), ...attributesOf(query, '&', queryAttributes)])
  const string = (name: string): string | undefined => found.get(name)?.toString('utf8')
  if (found.has('pin-value'))
    throw new Error('A pkcs11: URI here never holds a PIN (pin-value): name the file that does with pin-source=file:….')
  if (found.has('slot-id'))
    throw new Error('A pkcs11: URI here names its token by label or serial number: numbers of slots change (slot-id).')
  const type = string('type')
  if (type !== undefined && type !== 'private')
    throw new Error(`A pkcs11: URI here means a private key, and not type=${type}.`)
  const given = <K extends keyof Pkcs11Uri>(key: K, value: Pkcs11Uri[K] | undefined): Partial<Pkcs11Uri> =>
    value === undefined ? {} : ({ [key]: value } as Partial<Pkcs11Uri>)
  const uri: Pkcs11Uri = {
    ...given('token', string('token')),
    ...given('serial', string('serial')),
    ...given('manufacturer', string('manufacturer')),
    ...given('model', string('model')),
    ...given('object', string('object')),
    ...given('id', found.get('id')),
    ...given('modulePath', string('module-path')),
    ...given('pinSource', pinFileOf(string('pin-source'))),
    ...given('signature', string('x-signature')),
  }
  if (!uri.token && !uri.serial)
    throw new Error(`${text} does not say which token: add token=<label> or serial=<number>.`)
  if (!uri.object && !uri.id?.length)
    throw new Error(`${text} does not say which key: add object=<label> or id=<%01%02…>.`)
  return uri
}

/** The part that says which key, without the library and the PIN's file: what the records keep, and people are shown. */
export const formatPkcs11Uri = ({ token, serial, object, id }: Pkcs11Uri): string => {
  const part = (name: string, value: string | undefined): readonly string[] =>
    value === undefined ? [] : [`${name}=${encode(value)}`]
  const octets = id && [...id].map((octet) => `%${octet.toString(16).padStart(2, '0')}`).join('')
  return `pkcs11:${[...part('token', token), ...part('serial', serial), ...part('object', object), ...(octets ? [`id=${octets}`] : []), 'type=private'].join(';')}`
}

const attributesOf = (
  text: string,
  separator: string,
  known: ReadonlySet<string>,
): readonly (readonly [string, Buffer])[] => {
  const seen = new Set<string>()
  return text
    .split(separator)
    .filter((part) => part !== '')
    .map((part) => {
      const [name = '', value] = splitOnce(part, '=')
      if (value === undefined) throw new Error(`${JSON.stringify(part)} in a pkcs11: URI is no name=value.`)
      if (!known.has(name))
        throw new Error(`${JSON.stringify(name)} is no attribute of a pkcs11: URI that Chancery knows.`)
      if (seen.has(name)) throw new Error(`${name} stands twice in a pkcs11: URI.`)
      seen.add(name)
      return [name, decode(name, value)] as const
    })
}

const pinFileOf = (source: string | undefined): string | undefined => {
  if (source === undefined) return undefined
  // RFC 8089, 2: with no host, or this one.
  const path = source.startsWith('file:') ? source.slice('file:'.length).replace(/^\/\/(localhost)?(?=\/)/, '') : source
  // Not repeated: where somebody took it for pin-value, it is the PIN.
  if (!path.startsWith('/')) throw new Error('pin-source in a pkcs11: URI is not the absolute path of a file.')
  return path
}

const decode = (name: string, value: string): Buffer => {
  const octets = value.replace(/%([0-9a-fA-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
  if (/%(?![0-9a-fA-F]{2})/.test(value) || /[^\x21-\x7e]/.test(value))
    throw new Error(`The value of ${name} in a pkcs11: URI is not percent-encoded.`)
  return Buffer.from(octets, 'latin1')
}

const encode = (value: string): string =>
  [...Buffer.from(value)]
    .map((octet) =>
      /[A-Za-z0-9._~-]/.test(String.fromCharCode(octet))
        ? String.fromCharCode(octet)
        : `%${octet.toString(16).padStart(2, '0').toUpperCase()}`,
    )
    .join('')

const splitOnce = (text: string, separator: string): readonly [string, string | undefined] => {
  const at = text.indexOf(separator)
  return at === -1 ? [text, undefined] : [text.slice(0, at), text.slice(at + separator.length)]
}

const pathAttributes: ReadonlySet<string> = new Set([
  'token',
  'serial',
  'manufacturer',
  'model',
  'object',
  'id',
  'type',
  'slot-id',
  'pin-value',
])
const queryAttributes: ReadonlySet<string> = new Set(['module-path', 'pin-source', 'pin-value', 'x-signature'])
