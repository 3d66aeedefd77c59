/** What is told of requests that wait and have no condition for it. */
import t from 'tap'

import { readRequest } from '../../src/cli/controller.ts'
import type { PodCertificateRequest, SigningRequest } from '../../src/kubernetes/api/objects.ts'
import type { Told } from '../../src/kubernetes/decide/request.ts'
import { lookAtPodRequest } from '../../src/kubernetes/reconcile/pods.ts'
import { lookAtSigningRequest } from '../../src/kubernetes/reconcile/signing.ts'
import { issuerOf, recorded, signingRequest } from './objects.ts'

type Look = typeof lookAtPodRequest | typeof lookAtSigningRequest

const pod = recorded<PodCertificateRequest>('podcertificaterequests/01-create')
const signing = signingRequest('29-get-approved')
const kinds: readonly (readonly [Look, PodCertificateRequest | SigningRequest])[] = [
  [lookAtPodRequest, pod],
  [lookAtSigningRequest, signing],
]

for (const [look, object] of kinds)
  t.test(
    `${object.kind}: words that differ each time are an event a minute, what takes long is one at once`,
    async (t) => {
      const told: Told[] = []
      const time = { now: 0 }
      let answers = 0
      let retryAfter: number | undefined
      const problem = () => ({
        ...{ code: 'overload.queue', detail: `Number ${answers++}`, retryable: true },
        ...(retryAfter !== undefined && { retryAfter }),
      })
      const { signerName } = object.spec
      const deps = {
        watch: { get: () => object },
        signers: new Map([[signerName, { name: signerName, issuer: 'default', podNames: { dns: ['{pod}.test'] } }]]),
        recorder: { record: (_: unknown, event: Told) => told.push(event) },
        issuers: { find: () => issuerOf(), hear: () => {}, suspect: () => {} },
        asker: { ask: async () => ({ outcome: { kind: 'fault', fault: { kind: 'problem', problem: problem() } } }) },
        ...{ clock: () => new Date(Date.parse(object.metadata.creationTimestamp) + time.now), readRequest },
      }
      const reported = {}
      const tries = async (): Promise<number> => {
        const before = told.length
        for (let i = 0; i < 3; i += 1)
          await look(deps as never, { key: 'x', waited: 2, reported, signal: new AbortController().signal })
        return told.length - before
      }
      t.equal(await tries(), 1)
      time.now += 59_000
      t.equal(await tries(), 0)
      time.now += 1_000
      t.equal(await tries(), 1)
      retryAfter = 30
      t.equal(await tries(), 3)
      t.match(told.at(-1)?.note, /Number 11/)
    },
  )
