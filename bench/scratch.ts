/** A scratch database of many certificates, like one that the service has issued, put there through every trigger. */
import { fill } from '../test/helpers/filling.ts'
import { countBy, withClient } from './place.ts'
import type { Target } from './targets/target.ts'

/** As many as `certificates` in all, like the one with this serial. */
export const fillScratch = async (
  { database }: Target,
  serial: string,
  { certificates, tell }: { readonly certificates: number; readonly tell: (line: string) => void },
): Promise<void> => {
  const { ownerUrl = '' } = database ?? {}
  await withClient(ownerUrl, (client) =>
    fill(client, {
      serial,
      first: 1,
      last: certificates - 1,
      tell: (count) => {
        if (count % 200_000 === 0 || count === certificates - 1)
          tell(`${count + 1} certificates in the scratch database`)
      },
    }),
  )
  const there = await countBy(ownerUrl, 'select count(*) from certificates')
  if (there < certificates) throw new Error(`only ${there} certificates in the scratch database`)
}
