/**
 * Writes the tables of docs/configuration.md from the table of settings. Run it after changing a setting:
 * `node tools/configuration.ts`.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'

import { settings } from '../src/config/settings.ts'

/** The document with its generated part as the settings are now. */
export const renderConfiguration = (document: string): string => {
  const [before = '', rest = ''] = document.split(start)
  const [, after = ''] = rest.split(end)
  return `${before}${start}\n\n${renderSettings()}\n${end}${after}`
}

const renderSettings = (): string =>
  [
    '| environment | in the file | value | default |',
    '|---|---|---|---|',
    ...Object.values(settings).map(({ env, path, form, standard, secret }) => {
      const names = secret ? `\`${env}\`, \`${env}_FILE\`` : `\`${env}\``
      return `| ${names} | \`${path}\` | ${form} | ${standard === undefined ? 'unset' : `\`${standard}\``} |`
    }),
    '',
    ...Object.values(settings).map(({ env, about }) => `- **\`${env}\`**: ${about}`),
    '',
  ].join('\n')

const start = '<!-- settings: made by tools/configuration.ts -->'
const end = '<!-- end of settings -->'

if (import.meta.main) {
  const path = fileURLToPath(new URL('../docs/configuration.md', import.meta.url))
  await writeFile(path, renderConfiguration(await readFile(path, 'utf8')))
}
