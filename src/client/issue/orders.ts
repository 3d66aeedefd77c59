/** A file of orders, for a machine with more than one certificate. */

import { Failure } from '../../lib/failure.ts'
import { readGivenText } from '../../lib/input-files.ts'
import { parseYaml } from '../../lib/yaml.ts'
import type { IntoOptions } from './new-certificate.ts'

/** Each as the command line would have it. Throws a usage failure that names the order and what is wrong with it. */
export const readOrders = async (file: string): Promise<readonly IntoOptions[]> => {
  const text = await readGivenText(file)
  const list = await parseYaml(text).catch((error: Error) => {
    throw new Failure('usage', `${file} is not YAML: ${error.message}`)
  })
  if (!Array.isArray(list) || list.length === 0) throw new Failure('usage', `${file} is not a list of orders.`)
  return list.map((entry, i) => readEntry(entry, `${file}, order ${i + 1}`))
}

const readEntry = (entry: unknown, where: string): IntoOptions => {
  if (typeof entry !== 'object' || entry === null || Array.isArray(entry))
    throw new Failure('usage', `${where} is not a mapping.`)
  for (const [key, value] of Object.entries(entry)) {
    const form = forms.get(key)
    if (form === undefined)
      throw new Failure('usage', `${where}: ${key} is unknown; there are ${[...forms.keys()].join(', ')}.`)
    if (!form.is(value)) throw new Failure('usage', `${where}: ${key} is not ${form.called}.`)
  }
  const { names, ...options } = entry as IntoOptions & { readonly names?: readonly string[] }
  return { ...options, ...(names && { name: names }) }
}

const isText = (value: unknown): boolean => typeof value === 'string'
const text = { called: 'a text (write it in quotes)', is: isText }
const flag = { called: 'true or false', is: (value: unknown) => typeof value === 'boolean' }
const texts = { called: 'a list of texts', is: (value: unknown) => Array.isArray(value) && value.every(isText) }

const forms = new Map(
  Object.entries({
    profile: text,
    names: texts,
    commonName: text,
    validity: text,
    keyType: text,
    out: text,
    renewBefore: text,
    reuseKey: flag,
    keyMode: text,
    owner: text,
    exec: text,
    shell: flag,
  } satisfies Partial<Record<keyof IntoOptions | 'names', unknown>>),
)
