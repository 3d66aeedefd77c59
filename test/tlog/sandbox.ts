/**
 * Runs `src/tlog` where there is nothing but the language and what every browser has beside it: TextEncoder and
 * TextDecoder. Started by browser.test.ts with --experimental-vm-modules; says on standard output what it found.
 */
import { readFileSync } from 'node:fs'
import { stripTypeScriptTypes } from 'node:module'
import vm from 'node:vm'

const context = vm.createContext({ TextEncoder, TextDecoder })
const modules = new Map<string, vm.SourceTextModule>()

const load = (url: URL): vm.SourceTextModule => {
  const known = modules.get(url.href)
  if (known !== undefined) return known
  const source = stripTypeScriptTypes(readFileSync(url, 'utf8'))
  const module = new vm.SourceTextModule(source, { context, identifier: url.href })
  modules.set(url.href, module)
  return module
}

const main = load(new URL('in-browser.ts', import.meta.url))
await main.link((specifier, from) => load(new URL(specifier, from.identifier)))
await main.evaluate()
const { answer } = main.namespace as { readonly answer: Promise<unknown> }
process.stdout.write(
  JSON.stringify({
    answer: await answer,
    loaded: [...modules.keys()].map((href) => href.replace(/.*\/(?=src\/|test\/)/, '')),
  }),
)
