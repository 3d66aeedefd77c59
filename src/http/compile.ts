/**
 * Schemas as functions. Compiling them is half of what an application costs to open, while most calls are never made and
 * most schemas are shared: so each is compiled when it is first used, and once in a process for all that are alike. A
 * schema that does not compile is found by a test that compiles every one.
 */
import ajvCompiler from '@fastify/ajv-compiler'
import stringifyCompiler from '@fastify/fast-json-stringify-compiler'
import type { FastifySchemaCompiler, FastifySerializerCompiler } from 'fastify'

export const validatorCompiler: FastifySchemaCompiler<unknown> = ({ schema, ...route }) => {
  let check = isAtOnce(route) ? checkOf(schema) : undefined
  const validate: Check = (value: unknown) => {
    check ??= checkOf(schema)
    const fits = check(value)
    validate.errors = check.errors ?? null
    return fits
  }
  return validate
}

export const serializerCompiler: FastifySerializerCompiler<unknown> = ({ schema, ...route }) => {
  let serialize = isAtOnce(route) ? serializeOf(schema) : undefined
  return (value) => {
    serialize ??= serializeOf(schema)
    return serialize(value)
  }
}

/** The call that everybody makes: nobody waits for it once we listen, and the event loop is kept for less than 50 ms. */
const isAtOnce = ({ method, url }: { readonly method?: string; readonly url?: string }): boolean =>
  method === 'POST' && url === '/v1/certificates'

type Check = ReturnType<FastifySchemaCompiler<unknown>>
type Serialize = (value: unknown) => string

/** By the schema's text, whose order is kept: that is the order of what is serialized. */
const oncePerText = <Compiled>(build: () => (schema: unknown) => Compiled): ((schema: unknown) => Compiled) => {
  const known = new Map<string, Compiled>()
  let compile: ((schema: unknown) => Compiled) | undefined
  return (schema) => {
    const text = JSON.stringify(schema)
    const found = known.get(text)
    if (found !== undefined) return found
    compile ??= build()
    const compiled = compile(schema)
    known.set(text, compiled)
    return compiled
  }
}

const checkOf = oncePerText<Check>(() => {
  const compile = ajvCompiler()({}, { customOptions: { ...ajvOptions, validateSchema: false } })
  return (schema) => compile({ schema } as never) as Check
})

const serializeOf = oncePerText<Serialize>(() => {
  const compile = stringifyCompiler()({}, {})
  return (schema) => compile({ schema } as never)
})

/** Whether schemas are schemas is what a test asks: compiling the schema of schemas takes longer than all that a call needs. */
export const ajvOptions = {
  removeAdditional: false,
  coerceTypes: false,
  useDefaults: false,
  // A body is bounded in size, and an item of a batch as a body is.
  allErrors: true,
  strict: true,
  strictTypes: false,
  ownProperties: true,
} as const
