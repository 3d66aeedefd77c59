/** Which methods a path takes: asked only when no route was found. */
import type { FastifyInstance } from 'fastify'

/** Collects the routes that are registered from here on; the answer is empty for a path that none of them has. */
export const openAllowed = (app: Pick<FastifyInstance, 'addHook'>): ((url: string) => readonly string[]) => {
  const known: { readonly segments: readonly string[]; readonly methods: readonly string[] }[] = []
  app.addHook('onRoute', ({ url, method }) => {
    known.push({ segments: url.split('/'), methods: typeof method === 'string' ? [method] : method })
  })
  return (url) => {
    const segments = (url.split('?', 1)[0] ?? '').split('/')
    const methods = known.filter((route) => covers(route.segments, segments)).flatMap((route) => route.methods)
    return [...new Set(methods)].sort()
  }
}

/** `:name` stands for one segment that is not empty, `*` for the rest. */
const covers = (pattern: readonly string[], segments: readonly string[]): boolean => {
  const rest = pattern.indexOf('*')
  if (rest === -1 ? pattern.length !== segments.length : segments.length <= rest) return false
  return pattern.every((part, i) => part === '*' || part === segments[i] || (part.includes(':') && segments[i] !== ''))
}
