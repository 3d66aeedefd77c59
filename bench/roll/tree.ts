/**
 * What the tree costs: issuance by this revision beside the last one that kept leaves and no tree, no checkpoint and no
 * anchor, in turns. Nothing in the service knows of it: the other revision is the other revision, with its own schema.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'

import type { Options } from '../options.ts'
import type { Place } from '../place.ts'
import type { Row } from '../report.ts'
import { openChancery } from '../targets/chancery.ts'
import type { SampleRequest, Target } from '../targets/target.ts'
import { takeTurns } from '../turns.ts'

interface Plan {
  readonly options: Options
  readonly place: Place
  readonly sample: SampleRequest
  readonly generator: 'wrk' | 'node'
}

export const measureTree = async ({ options, place, sample, generator }: Plan): Promise<readonly Row[]> => {
  const root = checkOut(place.folder)
  const targets: Target[] = []
  try {
    targets.push(
      await openChancery({ place, sample, name: 'tree', title: 'with tree, checkpoint and anchor' }),
      await openChancery({ place, sample, name: 'leaves', title: `leaves only (${withoutTree.slice(0, 7)})`, root }),
    )
    return await takeTurns(targets, { options, place, generator })
  } finally {
    for (const target of targets) await target.close()
  }
}

/** Its files beside ours, with our packages. Throws git's words where this clone does not have it. */
const checkOut = (folder: string): string => {
  const root = join(folder, 'without-tree')
  mkdirSync(root)
  const repository = join(import.meta.dirname, '../..')
  const archive = execFileSync('git', ['archive', withoutTree], { cwd: repository, maxBuffer: 2 ** 28 })
  execFileSync('tar', ['-x', '-C', root], { input: archive })
  symlinkSync(join(repository, 'node_modules'), join(root, 'node_modules'))
  return root
}

/** "Every text of the roll is read in one spelling, or it is a fault": the last before the roll was a tree. */
const withoutTree = '2b5f38ec703b95d88ef076ba3a4556eb80aa25b0'
