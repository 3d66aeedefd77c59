/** The manifests of deploy/kubernetes, rendered by kubectl as those who apply them would. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join, relative } from 'node:path'

import { parse, parseAllDocuments } from 'yaml'

import { output } from '../interop/tools.ts'

export const home = join(import.meta.dirname, '..', '..')
export const manifests = join(home, 'deploy', 'kubernetes')

// biome-ignore lint/suspicious/noExplicitAny: the shapes are what the tests assert.
export type Json = any

export interface Manifest {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: {
    readonly name: string
    readonly namespace?: string
    readonly labels?: Readonly<Record<string, string>>
    readonly annotations?: Readonly<Record<string, string>>
  }
  readonly [member: string]: Json
}

/** What `kubectl apply -k` would send. */
export const render = async (folder: string): Promise<readonly Manifest[]> =>
  parseAllDocuments(await output('kubectl', ['kustomize', folder])).map((document) => document.toJS() as Manifest)

/** A base with components that no overlay has together. */
export const renderWith = async (base: string, components: readonly string[]): Promise<readonly Manifest[]> => {
  const folder = await mkdtemp(join(tmpdir(), 'chancery-kustomize-'))
  const at = (path: string): string => relative(folder, join(manifests, path))
  try {
    const kustomization = {
      apiVersion: 'kustomize.config.k8s.io/v1beta1',
      kind: 'Kustomization',
      resources: [at(base)],
      components: components.map((name) => at(`components/${name}`)),
    }
    await writeFile(join(folder, 'kustomization.yaml'), JSON.stringify(kustomization))
    return await render(folder)
  } finally {
    await rm(folder, { recursive: true })
  }
}

/** The names of the folders in one of deploy/kubernetes that can be rendered. */
export const namesIn = async (folder: string): Promise<readonly string[]> => {
  const entries = await readdir(join(manifests, folder), { recursive: true })
  return entries.filter((path) => basename(path) === 'kustomization.yaml').map((path) => path.split('/')[0] ?? '')
}

export const readYaml = async (path: string): Promise<Json> => parse(await readFile(join(manifests, path), 'utf8'))

/** Everything that can be applied, by its place. */
export const everything = async (): Promise<ReadonlyMap<string, readonly Manifest[]>> => {
  const overlays = (await namesIn('overlays')).map((name) => `overlays/${name}`)
  const examples = (await namesIn('examples')).map((name) => `examples/${name}`)
  const rendered = new Map<string, readonly Manifest[]>()
  for (const place of [...overlays, ...examples]) rendered.set(place, await render(join(manifests, place)))
  for (const name of await namesIn('components')) rendered.set(`components/${name}`, await renderWith('base', [name]))
  return rendered
}

export interface PodTemplate {
  readonly owner: string
  readonly labels: Readonly<Record<string, string>>
  readonly spec: Json
}

/** The pods that an object makes; none of most kinds. */
export const podsOf = ({ kind, metadata, spec }: Manifest): readonly PodTemplate[] => {
  const template = podTemplates[kind]?.({ metadata, spec })
  return template
    ? [{ owner: `${kind} ${metadata.name}`, labels: template.metadata?.labels ?? {}, spec: template.spec }]
    : []
}

const podTemplates: Readonly<Record<string, (object: Json) => Json>> = {
  Pod: (object) => object,
  Deployment: ({ spec }) => spec.template,
  StatefulSet: ({ spec }) => spec.template,
  DaemonSet: ({ spec }) => spec.template,
  Job: ({ spec }) => spec.template,
  CronJob: ({ spec }) => spec.jobTemplate.spec.template,
}
