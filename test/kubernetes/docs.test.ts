/** docs/controller.md says what the tables say, and its settings are settings. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'
import { parse } from 'yaml'

import { readControllerDocument } from '../../src/cli/controller.ts'
import { renderController } from '../../tools/controller.ts'
import { openCluster } from './cluster.ts'
import { manifests } from './running.ts'
import type { Tree } from './values.ts'

const page = await readFile(join(import.meta.dirname, '../../docs/controller.md'), 'utf8')
const blocks = [...page.matchAll(/```yaml\n([\s\S]+?)```/g)].map(([, text = '']) => text)

t.test('its tables are those of settings and metrics', async (t) => {
  t.equal(page, renderController(page), 'else run node tools/controller.ts')
})

t.test('the settings that it shows are taken', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-controller-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const shown = blocks.find((text) => text.startsWith('secretNamespace')) ?? 'none'
  await writeFile(join(folder, 'settings.yaml'), shown)
  const { document } = await readControllerDocument(join(folder, 'settings.yaml'))
  t.equal(document.signers?.length, 2)
})

t.test('the issuer that it shows is one by its definition', async (t) => {
  const definitions = manifests('crds/chanceryissuers', 'crds/chanceryclusterissuers')
  const cluster = await openCluster(t, { definitions })
  const issuer = parse(blocks.find((text) => text.includes('kind: ChanceryIssuer')) ?? '') as Tree
  const spec: Tree = { ...(issuer['spec'] as Tree), caBundle: Buffer.from('pem').toString('base64') }
  await cluster.apply({ ...issuer, spec })
  await t.rejects(cluster.apply({ ...issuer, spec: { ...spec, url: 'http://chancery' } }), /spec\.url/)
  await t.rejects(cluster.apply({ ...issuer, spec: { url: spec['url'] ?? '' } }), /profile/)
})
