/** The search for certificates. */
import type { CertificateFilter, CertificateText, Start, Walk } from '../../ca/records.ts'
import { keysetShape, openCertificateWay } from './access-paths.ts'
import type { SearchDeps } from './certificate-rows.ts'
import { textOf } from './certificate-text.ts'
import { openWalkOf } from './cursors.ts'
import { beginSearch } from './pages.ts'

export const walkCertificates = async <T>(
  deps: SearchDeps,
  filter: CertificateFilter,
  start: Start = {},
  itemOf: (text: CertificateText) => T,
): Promise<Walk<T>> => {
  const span = { after: filter.issuedAfter, before: filter.issuedBefore }
  const search = { records: 'certificates', filter, start }
  const begun = await beginSearch(deps.db, { ...search, span }, keysetShape(filter))
  const { way, count } = await openCertificateWay(deps, filter, begun)
  return openWalkOf({
    begun,
    search,
    range: { from: begun.low, before: begun.high },
    way,
    item: (row) => itemOf(textOf(row, deps)),
    count,
  })
}
