/**
 * Writes the tables of docs/controller.md from the schema of its settings and the table of its metrics. Run it after changing
 * either: `node tools/controller.ts`.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'

import { controllerMetrics } from '../src/kubernetes/metrics.ts'
import { ControllerDocument } from '../src/kubernetes/settings.ts'

/** The document with its generated parts as the tables are now. */
export const renderController = (document: string): string =>
  Object.entries(parts).reduce((text, [name, render]) => {
    const [start, end] = [`<!-- ${name}: made by tools/controller.ts -->`, `<!-- end of ${name} -->`]
    const [before = '', rest = ''] = text.split(start)
    const [, after = ''] = rest.split(end)
    return `${before}${start}\n\n${render()}\n\n${end}${after}`
  }, document)

const renderSettings = (): string =>
  [
    '| setting | default | what it says |',
    '|---|---|---|',
    ...Object.entries(ControllerDocument.properties).map(([name, schema]) => {
      const { default: standard, $comment = '' } = schema as { default?: unknown; $comment?: string }
      const shown = Array.isArray(standard) || standard === undefined ? 'unset' : `\`${String(standard)}\``
      return `| \`${name}\` | ${shown} | ${$comment} |`
    }),
  ].join('\n')

const renderMetrics = (): string =>
  [
    '| metric | labels | what it counts |',
    '|---|---|---|',
    ...Object.entries(controllerMetrics).map(
      ([name, { help, labels }]) => `| \`${name}\` | ${labels.map((label) => `\`${label}\``).join(', ')} | ${help} |`,
    ),
  ].join('\n')

const parts: Readonly<Record<string, () => string>> = { settings: renderSettings, metrics: renderMetrics }

if (import.meta.main) {
  const path = fileURLToPath(new URL('../docs/controller.md', import.meta.url))
  await writeFile(path, renderController(await readFile(path, 'utf8')))
}
