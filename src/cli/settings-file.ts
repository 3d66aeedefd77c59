/** Settings of a process beside the service: a YAML file, judged by a closed schema. */
import { Failure } from '../lib/failure.ts'
import { readGivenText } from '../lib/input-files.ts'
import { visible } from '../lib/output.ts'
import type { TSchema } from '../lib/schema.ts'
import { parseYaml } from '../lib/yaml.ts'
import { type ShapeFault, shapeFaults } from '../policy/shape.ts'

export interface SettingsFile {
  readonly path: string
  /** `the controller`. */
  readonly whose: string
  /** Where they are explained. */
  readonly page: string
}

/** Throws a usage failure with every fault of its shape and its place. */
export const readSettingsFile = async <D>(file: SettingsFile, schema: TSchema): Promise<D> => {
  const read: unknown = await parseYaml(await readGivenText(file.path)).catch((error: Error) => {
    throw new Failure('usage', `${file.path} is not YAML: ${error.message}`)
  })
  const document = read ?? {}
  assertNoFault(file, shapeFaults(schema, document))
  return document as D
}

export const assertNoFault = ({ path, whose, page }: SettingsFile, faults: readonly ShapeFault[]): void => {
  if (faults.length === 0) return
  const lines = faults.map(({ field, value, reason }) =>
    visible(`  - ${field || 'the file'}:${value && ` ${value}`} ${reason}`),
  )
  throw new Failure('usage', [`${path} does not hold settings of ${whose} (${page}):`, ...lines].join('\n'))
}
