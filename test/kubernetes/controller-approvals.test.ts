/** A profile that wants approvals: a request of cert-manager waits for people at Chancery. */
import t from 'tap'

import { openDesk } from '../http/approvals.ts'
import { employ } from '../http/people.ts'
import { messageOf, openRunning } from './running.ts'
import { textAt } from './values.ts'

t.test('people who must approve are waited for, and then there is the certificate', async (t) => {
  const running = await openRunning(t)
  const { service } = running
  const { json } = await service.request('GET', '/v1/profiles/cluster')
  const careful = { ...json.document, name: 'careful', approvals: { required: 1 } }
  await service.request('PUT', '/v1/profiles/careful', { headers: { 'if-none-match': '*' }, body: careful })
  await service.request('POST', '/v1/grants', {
    body: { principal: 'cluster', role: 'requester', profiles: ['careful'], onBehalfOf: {} },
  })
  const alice = await employ(service, 'alice', 'approver', { profiles: ['careful'] })
  await running.issuer({ spec: { profile: 'careful' } })
  const request = await running.ask('pay-1')
  const pending = await running.ended('pay-1', 'Pending')
  const [, id = ''] = /request ([0-9a-f-]+) of Chancery/.exec(messageOf(pending)) ?? []
  const [controller] = running.controllers
  const later = [
    ...((await controller?.metrics()) ?? '').matchAll(/^chancery_controller_queue\{(.*state="later".*)\} (.*)$/gm),
  ]
  t.strictSame(
    later.map(([, , count]) => count),
    ['0', '0'],
    'a ready issuer and a request that waits for people have met no setback: nobody is to be told',
  )
  const open = await service.request('GET', `/v1/requests/${id}`, { token: alice })
  t.match(open.json, { state: 'pending' })
  const said = await openDesk(service).approve(alice, open.json)
  t.equal(said.status, 200, said.text)
  const done = await running.ended('pay-1', 'Issued')
  t.equal(textAt(done, 'metadata', 'uid'), textAt(request, 'metadata', 'uid'))
})
