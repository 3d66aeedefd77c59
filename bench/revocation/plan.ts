import type { Generator } from '../load/load.ts'
import type { Options } from '../options.ts'
import type { Place } from '../place.ts'
import type { SampleRequest } from '../targets/target.ts'

/** What each part of the run is given. */
export interface Plan {
  readonly options: Options
  readonly place: Place
  readonly sample: SampleRequest
  readonly generator: Generator
  readonly tell: (line: string) => void
}
