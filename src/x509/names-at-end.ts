import { isProblem } from '../errors.ts'
import { DerReader, encodeOid, tags } from './der.ts'
import { extensionOids } from './extensions.ts'
import { type Name, readIssuedNames } from './names.ts'

/**
 * The names of a TBSCertificate as `encodeTbs` writes it, from all of it, or from what is left of it behind the first place
 * that has the octets of the identifier of subjectAltName (`namesIdentifier`): a fifth of it.
 *
 * A key may hold these octets as well, and behind them whatever its owner likes. So only a place counts behind which there
 * are, up to the last octet, names and then the distribution point, as they are written. Between a key and its names there
 * are always BasicConstraints and authorityInfoAccess, and these no name and no URL can hold: text has no such octets, and
 * an address is not long enough.
 */
export const readNamesAtEnd = (end: Buffer): readonly Name[] => {
  for (let at = end.indexOf(namesIdentifier); at >= 0; at = end.indexOf(namesIdentifier, at + 1)) {
    try {
      return readFrom(new DerReader(end, 'policy.lint', at))
    } catch (error) {
      if (!isProblem(error)) throw error
    }
  }
  return []
}

/** The DER of the OID of subjectAltName. */
export const namesIdentifier = encodeOid(extensionOids.subjectAltName)

/** From within the extension, after its header. */
const readFrom = (reader: DerReader): readonly Name[] => {
  reader.skip()
  reader.optional(tags.boolean, 'critical')
  const { start, end } = reader.read(tags.octetString, 'extnValue')
  if (!reader.done) assertPoint(reader)
  return readIssuedNames(new DerReader(reader.buffer, reader.code, start, end))
}

/** One extension with one distribution point of one URL, and nothing beside it on any level. */
const assertPoint = (reader: DerReader): void => {
  let level = reader.read(tags.sequence, 'Extension')
  reader.finish('Extensions')
  if (!level.element(tags.oid, 'extnID').equals(pointsIdentifier))
    throw level.problem('an extension that does not stand behind names')
  for (const tag of [tags.octetString, tags.sequence, tags.sequence, 0xa0, 0xa0, 0x86]) {
    const inner = level.read(tag, 'cRLDistributionPoints')
    level.finish('cRLDistributionPoints')
    level = inner
  }
  if (!visible.test(level.octets.toString('latin1')))
    throw level.problem('a URL has other characters than visible ASCII')
}

const pointsIdentifier = encodeOid(extensionOids.crlDistributionPoints)
const visible = /^[\x21-\x7e]+$/
