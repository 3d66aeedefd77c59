/** Tokens of the double are tokens of a cluster: Chancery finds their keys by discovery, and believes them. */
import t from 'tap'

import { audience } from '../helpers/issuer.ts'
import { openTestService } from '../helpers/service.ts'
import { csrFor } from '../http/people.ts'
import { openCluster } from './cluster.ts'

t.test('a service account of the double gets a certificate from Chancery, and for another audience none', async (t) => {
  const cluster = await openCluster(t)
  const service = await openTestService(t)
  const made = await service.request('PUT', '/v1/identity-providers/cluster', {
    headers: { 'if-none-match': '*' },
    body: {
      name: 'cluster',
      issuer: cluster.url,
      keys: { discovery: true, ca: cluster.ca },
      algorithms: ['RS256'],
      audience,
      lifetime: '1h',
      mappings: [
        {
          id: 'workloads',
          claims: { '/kubernetes.io/namespace': 'team-a' },
          principal: 'cluster:{/kubernetes.io/namespace}:{/kubernetes.io/serviceaccount/name}',
          grants: [{ profiles: ['server'], names: { dns: { allow: ['*.example.com'] } } }],
        },
      ],
    },
  })
  t.equal(made.status, 201, made.text)
  const issue = async (token: string): Promise<string> => {
    const body = { csr: csrFor('web.example.com'), profile: 'server' }
    const { status, json } = await service.request('POST', '/v1/certificates', { token, body })
    return status === 201 ? 'issued' : json.code
  }
  t.equal(await issue(cluster.tokenOf('team-a/workload', { audiences: [audience] })), 'issued')
  t.equal(await issue(cluster.tokenOf('team-a/workload')), 'auth.audience')
  t.equal(await issue(cluster.tokenOf('team-b/workload', { audiences: [audience] })), 'auth.unmapped')
})
