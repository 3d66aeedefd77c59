/** Where nothing is wrong with what is to be trusted, TLS trusts all of it; it says itself of nothing that it passes over. */
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { connect, createServer } from 'node:tls'

import t from 'tap'

import { trustFault } from '../../src/client/trust.ts'
import { openClientCa, serverAuth } from '../helpers/clients.ts'

const authorities = ['One', 'Two', 'Three'].map((name) => openClientCa(name))
const [one, two, three] = authorities.map(({ pem }) => pem) as [string, string, string]
const { key } = openClientCa('Of a key').certify()
const as = (label: string): string => two.replaceAll('CERTIFICATE', label)
const torn = three.slice(0, -20)
const eachLine = (pem: string, before: string): string => pem.replaceAll(/^(?=.)/gm, before)

const unreadable = (number: number): string =>
  `holds a certificate that cannot be read, as when it is torn or the next begins in its last line: number ${number}`
const nothing = 'holds no certificate in PEM'

/** Which of the three TLS trusts, and what is wrong where it is not what was meant. */
const texts: readonly (readonly [what: string, text: string, trusted: string, fault?: string])[] = [
  ['as they are', one + two + three, '123'],
  ['of Windows', `\ufeff${(one + two + three).replaceAll('\n', '\r\n')}`, '123'],
  ['files with a byte order mark each', `${one}\ufeff${two}\ufeff${three}`, '123'],
  [
    'with words between',
    `Ours:\n${one}Certificate:\n    Data:\n        Version: 3\n${two}# Theirs\n\n${three}# End`,
    '123',
  ],
  [
    'with words about such lines',
    `${one}# not to forget: -----END CERTIFICATE-----\n${two}${three}# -----BEGIN CERTIFICATE-----\n`,
    '123',
  ],
  ['with spaces behind each line', (one + two + three).replaceAll('\n', ' \t\n'), '123'],
  ['without an end of the last line', (one + two + three).trimEnd(), '123'],
  ['with the old label', one + as('X509 CERTIFICATE') + three, '123'],
  ['with a key', one + key + two + three + key, '123'],
  ['with a key that is torn behind all', one + two + three + key.slice(0, 100), '123'],
  ['one is a comment', one + eachLine(two, '# ') + three, '13'],
  ['the last is a comment', one + two + eachLine(three, '#'), '12'],
  ['one is something else', one + as('CERTIFICATE REQUEST') + three, '13'],
  ['nothing', '', '', nothing],
  ['a key alone', key, '', nothing],
  ['a request alone', as('CERTIFICATE REQUEST'), '', nothing],
  ['of another encoding', Buffer.from(one, 'utf16le').toString(), '', nothing],
  ['the first begins, and no more', '-----BEGIN CERTIFICATE-----', '', unreadable(1)],
  ['the first is torn', `${one.slice(0, 200)}\n${two}${three}`, '', unreadable(1)],
  ['the second has no beginning', one + two.slice(200) + three, '13', unreadable(2)],
  ['a key is torn', `${one}${key.slice(0, 100)}\n${two}${three}`, '1', unreadable(2)],
  ['a blank line is within the second', `${one}${two.slice(0, 200)}\n\n${two.slice(200)}${three}`, '1', unreadable(2)],
  ['the second is indented', one + eachLine(two, '  ') + three, '13', unreadable(2)],
  ['the last is torn', one + two + torn, '12', unreadable(3)],
  ...['X509 CERTIFICATE', 'TRUSTED CERTIFICATE'].flatMap((label) => [
    [`the last is torn behind a ${label}`, one + as(label) + torn, '12', unreadable(3)] as const,
    [`the last is a ${label}, and torn`, one + as(label).slice(0, -30), '1', unreadable(2)] as const,
  ]),
  ['the last is torn behind spaces at the end of a line', `${one.trimEnd()} \t\n${torn}`, '1', unreadable(2)],
  ['the last is torn behind a byte order mark', `${one}\ufeff${torn}`, '1', unreadable(2)],
  ['the last is indented, and torn', one + eachLine(torn, ' \t'), '1', unreadable(2)],
  ['files without an end of their last line', one.trimEnd() + two.trimEnd() + three, '', unreadable(1)],
  ['the second without an end of its last line', one + two.trimEnd() + three, '1', unreadable(2)],
]

t.test('where no fault is told, TLS trusts whatever was to be trusted', async (t) => {
  const ports = await Promise.all(
    authorities.map(async (authority) => {
      const { cert, key } = authority.certify({ usage: serverAuth })
      const server = createServer({ cert, key }, (socket) => socket.end())
      server.on('tlsClientError', () => {})
      t.teardown(() => server.close())
      await once(server.listen(0, '127.0.0.1'), 'listening')
      return (server.address() as AddressInfo).port
    }),
  )
  const isTrusted = async (port: number, ca: string): Promise<boolean> => {
    const socket = connect({ host: '127.0.0.1', port, ca, checkServerIdentity: () => undefined })
    const trusted = await once(socket, 'secureConnect').then(
      () => true,
      () => false,
    )
    socket.destroy()
    return trusted
  }
  for (const [what, text, trusted, fault] of texts) {
    t.equal(trustFault(text), fault, what)
    const found = await Promise.all(ports.map((port) => isTrusted(port, text)))
    t.equal(found.map((is, i) => (is ? i + 1 : '')).join(''), trusted, `${what}: TLS trusts ${trusted || 'nobody'}`)
  }
})
