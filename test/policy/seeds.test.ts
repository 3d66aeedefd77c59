import t from 'tap'

import { type Ask, type Decision, decide, recheck } from '../../src/policy/decide.ts'
import { systemMasters } from '../../src/policy/subject.ts'
import { keyAlgorithms } from '../../src/x509/algorithms.ts'
import { parseRequest } from '../../src/x509/csr.ts'
import type { Subject } from '../../src/x509/subject.ts'
import { ask, commonName, context, csrOf, keyOf, namesOf, seed, seeds } from './requests.ts'

const judge = (name: string, request: Ask): Decision => decide(seed(name), request, context)
const failed = (decision: Decision): readonly string[] =>
  decision
    .checks()
    .filter(({ outcome }) => outcome === 'failed')
    .map(({ check }) => check)
const parse = (text: string) => parseRequest(Buffer.from(text, 'base64'))
const node = (name: string, organization = 'system:nodes'): Subject => [
  { type: 'organization', value: organization },
  ...commonName(`system:node:${name}`),
]

/** A request that each profile is made for, and the subject that it gets. */
const typical: Readonly<Record<string, readonly [Ask, string]>> = {
  server: [ask({ names: namesOf('dns:www.example.com', 'ip:127.0.0.1') }), ''],
  client: [
    ask({ names: namesOf('dns:ci.build.example.internal'), subject: commonName('ci.build.example.internal') }),
    'commonName=ci.build.example.internal',
  ],
  peer: [ask({ names: namesOf('dns:localhost', 'ip:::1') }), ''],
  'kube-apiserver': [
    ask({
      names: namesOf(
        'dns:kubernetes',
        'dns:kubernetes.default',
        'dns:kubernetes.default.svc',
        'dns:kubernetes.default.svc.cluster.local',
        'dns:control-1',
        'ip:10.96.0.1',
        'ip:10.0.0.1',
        'ip:127.0.0.1',
      ),
    }),
    'commonName=kube-apiserver',
  ],
  'kube-apiserver-kubelet-client': [
    ask({ subject: commonName('kube-apiserver-kubelet-client') }),
    'organization=kubeadm:cluster-admins,commonName=kube-apiserver-kubelet-client',
  ],
  'kubelet-serving': [
    ask({ names: namesOf('dns:worker-1', 'ip:10.0.3.7'), subject: node('worker-1') }),
    'organization=system:nodes,commonName=system:node:worker-1',
  ],
  'kubelet-client': [ask({ subject: node('worker-1') }), 'organization=system:nodes,commonName=system:node:worker-1'],
  'kube-controller-manager': [
    ask({ subject: commonName('system:kube-controller-manager') }),
    'commonName=system:kube-controller-manager',
  ],
  'kube-scheduler': [ask({}), 'commonName=system:kube-scheduler'],
  'kubernetes-admin': [
    ask({ subject: [{ type: 'organization', value: 'kubeadm:cluster-admins' }, ...commonName('kubernetes-admin')] }),
    'organization=kubeadm:cluster-admins,commonName=kubernetes-admin',
  ],
  'webhook-serving': [ask({ names: namesOf('dns:hook.prod.svc', 'dns:hook.prod.svc.cluster.local') }), ''],
  'spiffe-workload': [ask({ names: namesOf('uri:spiffe://cluster.local/ns/prod/sa/web') }), ''],
  'etcd-server': [
    ask({
      names: namesOf('dns:control-1', 'dns:localhost', 'ip:10.0.0.1', 'ip:127.0.0.1', 'ip:::1'),
      subject: commonName('kube-etcd'),
    }),
    'commonName=kube-etcd',
  ],
  'etcd-peer': [
    ask({ names: namesOf('dns:control-1', 'dns:localhost', 'ip:10.0.0.1'), subject: commonName('control-1') }),
    'commonName=control-1',
  ],
  'etcd-client': [ask({ subject: commonName('kube-apiserver-etcd-client') }), 'commonName=kube-apiserver-etcd-client'],
  'front-proxy-client': [ask({ subject: commonName('front-proxy-client') }), 'commonName=front-proxy-client'],
}

/** Authority and extended key usage, as Kubernetes documents them for its set. */
const kinds: Readonly<Record<string, readonly [string, string]>> = {
  server: ['default', 'serverAuth'],
  client: ['default', 'clientAuth'],
  peer: ['default', 'serverAuth,clientAuth'],
  'kube-apiserver': ['kubernetes', 'serverAuth'],
  'kube-apiserver-kubelet-client': ['kubernetes', 'clientAuth'],
  'kubelet-serving': ['kubernetes', 'serverAuth'],
  'kubelet-client': ['kubernetes', 'clientAuth'],
  'kube-controller-manager': ['kubernetes', 'clientAuth'],
  'kube-scheduler': ['kubernetes', 'clientAuth'],
  'kubernetes-admin': ['kubernetes', 'clientAuth'],
  'webhook-serving': ['kubernetes', 'serverAuth'],
  'spiffe-workload': ['kubernetes', 'serverAuth,clientAuth'],
  'etcd-server': ['etcd', 'serverAuth,clientAuth'],
  'etcd-peer': ['etcd', 'serverAuth,clientAuth'],
  'etcd-client': ['etcd', 'clientAuth'],
  'front-proxy-client': ['front-proxy', 'clientAuth'],
}

t.test('the seeds are exactly the documented set, each of its authority and usage', async (t) => {
  t.same([...seeds.keys()].sort(), Object.keys(typical).sort())
  for (const [name, profile] of seeds) {
    t.same([profile.authority, profile.extendedKeyUsage.join()], kinds[name], name)
  }
})

for (const [name, [request, subject]] of Object.entries(typical)) {
  t.test(`${name} issues what it is made for, with every key that it lists`, async (t) => {
    const profile = seed(name)
    for (const id of profile.keys.keys()) {
      for (const bits of id === 'rsa' ? [2048, 3072, 4096] : [keyAlgorithms[id].bits ?? 0]) {
        const decision = judge(name, { ...request, csr: csrOf({ ...request.csr, key: keyOf(id, bits) }) })
        t.same(failed(decision), [], `${name} ${id} ${bits}`)
        if (!decision.allowed) continue
        t.equal(decision.plan.subject.map(({ type, value }) => `${type}=${value}`).join(), subject)
        t.same(decision.plan.keyUsage, id === 'rsa' ? ['digitalSignature', 'keyEncipherment'] : ['digitalSignature'])
        t.same(recheck(profile, { ...decision.plan, ca: false }, context), [])
      }
    }
    for (const id of ['rsa', 'ec-p256', 'ec-p384', 'ec-p521', 'ed25519'] as const) t.ok(profile.keys.has(id), id)
  })

  t.test(`${name} never yields system:masters`, async (t) => {
    t.notOk(JSON.stringify(seed(name).document).includes(systemMasters))
    const masters: Subject = [...request.csr.subject, { type: 'organization', value: systemMasters }]
    t.ok(
      failed(judge(name, { ...request, csr: csrOf({ ...request.csr, subject: masters }) })).includes(
        'subject.systemMasters',
      ),
    )
  })
}

t.test('the seed example of many Kubernetes guides is issued by kube-apiserver', async (t) => {
  // openssl req -subj /C=US/ST=Washington/L=Seattle/O=Kubernetes/OU=CA/CN=kube-apiserver
  const csr = parse(guideRequest)
  const decision = judge('kube-apiserver', { csr })
  t.same(failed(decision), [])
  t.same(csr.names, namesOf('ip:10.0.0.1', 'ip:127.0.0.1', 'dns:kubernetes.default'))
  t.same(
    decision.notes.map(({ field }) => field),
    ['country', 'province', 'locality', 'organization', 'organizationalUnit'].map((type) => `/subject/${type}`),
  )
  if (decision.allowed) t.same(decision.plan.subject, commonName('kube-apiserver'))
})

t.test("cert-manager's default request is issued by server, without keyEncipherment for its P-256 key", async (t) => {
  const csr = parse(certManagerRequest)
  t.same(csr.subject, [])
  const decision = judge('server', { csr })
  t.same(failed(decision), [])
  t.match(decision.notes, [{ field: '/keyUsage', reason: /^keyEncipherment is dropped/ }])
})

t.test("a kubelet's request and a workload's are issued as openssl makes them", async (t) => {
  t.same(failed(judge('kubelet-serving', { csr: parse(kubeletRequest) })), [])
  t.same(failed(judge('spiffe-workload', { csr: parse(spiffeRequest) })), [])
})

t.test('a kubelet gets its own names only', async (t) => {
  const serving = (names: readonly string[], subject: Subject = node('worker-1')) =>
    failed(judge('kubelet-serving', ask({ names: namesOf(...names), subject })))
  t.same(serving(['dns:worker-2']), ['bind.node-own-name'])
  t.same(serving(['dns:worker-1.node.cluster.local']), [])
  t.same(serving(['dns:worker-10']), ['bind.node-own-name'])
  t.same(
    serving(['dns:ip-10-0-3-7.eu.example.internal'], node('ip-10-0-3-7.eu.example.internal')),
    [],
    'a node name with dots',
  )
  for (const name of ['kubernetes', 'kubernetes.default', 'api', 'api.example.internal', 'api-int.eu.example.internal'])
    t.ok(
      serving([`dns:${name}`], node(name.replace(/\..*/, ''))).includes('names.dns.deny'),
      `a node named like the API server: ${name}`,
    )
  t.same(serving(['dns:api-7.eu.example.internal'], node('api-7')), [])
  t.same(serving(['dns:worker-1', 'ip:8.8.8.8']), ['names.ip.allow'])
  for (const address of serviceAddresses)
    t.same(serving(['dns:worker-1', `ip:${address}`]), ['names.ip.deny'], `${address} is an API server to its pods`)
  for (const address of ['10.0.0.2', '10.112.0.1', '172.31.0.1']) t.same(serving([`ip:${address}`]), [], address)
  t.same(serving(['dns:worker-1'], node('worker-1', 'system:masters')), [
    'subject.organization',
    'subject.systemMasters',
  ])
  t.same(serving([]), ['names.require'])
  t.same(serving(['dns:worker-1'], commonName('system:kube-scheduler')), ['subject.commonName', 'bind.node-own-name'])
})

t.test('a kubelet shows itself without names of any kind', async (t) => {
  for (const name of ['dns:worker-1', 'ip:10.0.0.1', 'uri:spiffe://cluster.local/ns/a/sa/b', 'email:a@example.com']) {
    t.match(failed(judge('kubelet-client', ask({ names: namesOf(name), subject: node('worker-1') }))), [
      /^names\.\w+\.allow$/,
    ])
  }
})

t.test('a webhook is never the API server, nor an etcd member root', async (t) => {
  for (const name of ['kubernetes.default.svc', 'kubernetes.default.svc.cluster.local']) {
    t.same(failed(judge('webhook-serving', ask({ names: namesOf(`dns:${name}`) }))), ['names.dns.deny'])
  }
  for (const name of ['etcd-server', 'etcd-peer'])
    t.same(
      failed(judge(name, ask({ names: namesOf('dns:kubernetes', 'dns:control-1'), subject: commonName('control-1') }))),
      ['names.dns.deny'],
      name,
    )
  t.same(failed(judge('etcd-server', ask({ names: namesOf('dns:root'), subject: commonName('root') }))), [
    'names.dns.deny',
  ])
  t.same(failed(judge('etcd-server', ask({ names: namesOf('dns:control-1'), subject: commonName('root') }))), [
    'subject.commonName',
  ])
})

t.test('names outside the development domains are refused by the default authority', async (t) => {
  for (const name of ['server', 'client', 'peer']) {
    for (const other of [
      'dns:example.com',
      'dns:www.example.org',
      'dns:example.com.evil.org',
      'ip:10.0.0.1',
      'dns:*.example.com',
      'uri:spiffe://td/a',
    ]) {
      t.notOk(judge(name, ask({ names: namesOf(other) })).allowed, `${name} ${other}`)
    }
    t.ok(judge(name, ask({ names: namesOf('dns:a.b.c.example.com') })).allowed)
  }
})

// Made with OpenSSL 3.5.9 and P-256 keys that were thrown away.
const guideRequest =
  'MIIBaDCCAQ0CAQAwbzELMAkGA1UEBhMCVVMxEzARBgNVBAgMCldhc2hpbmd0b24xEDAOBgNVBAcMB1NlYXR0bGUxEzARBgNVBAoMCkt1YmVybmV0ZXMxCzAJBgNVBAsMAkNBMRcwFQYDVQQDDA5rdWJlLWFwaXNlcnZlcjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABMri+LWaE4duiSlnh1n3e0uRMqRVbkmrS8mGYtvl0DS3juEeBP8IC5pfone5EqXTL951FpFB9vJlQgsJhLm6+FCgPDA6BgkqhkiG9w0BCQ4xLTArMCkGA1UdEQQiMCCHBAoAAAGHBH8AAAGCEmt1YmVybmV0ZXMuZGVmYXVsdDAKBggqhkjOPQQDAgNJADBGAiEAtCOimLRGqK1BFD1mI4M5v4BYPh57Y8A6eRggGYMlEnUCIQC887kJujLds4hxW159339+29tF84zd1OIwe9xK7YMWDg=='
const certManagerRequest =
  'MIH1MIGcAgEAMAAwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATm8+hfHXAH5bPqwie5R6eZJz2hM1VqqazWKYqVjobsncazdcy4u+6X0C0uVWHakG1eLcK0s/o1oKYeR/TTT/2EoDowOAYJKoZIhvcNAQkOMSswKTAaBgNVHREEEzARgg9hcHAuZXhhbXBsZS5jb20wCwYDVR0PBAQDAgWgMAoGCCqGSM49BAMCA0gAMEUCIQDo7AXPNEgTKvm0jCFXxhMGHvAIBDH1VCWhUMBtHOW4GgIgYN+9wWjtMBe/TmOu4y0H2K474CBxAxdlt77oPyukM0I='
/** Where pods find the API server, by the defaults of those who make clusters. */
const serviceAddresses = [
  '10.0.0.1',
  '10.32.0.1',
  '10.43.0.1',
  '10.96.0.1',
  '10.100.0.1',
  '10.152.183.1',
  '10.233.0.1',
  '172.20.0.1',
  '172.30.0.1',
]
const kubeletRequest =
  'MIIBPjCB5gIBADA2MRUwEwYDVQQKDAxzeXN0ZW06bm9kZXMxHTAbBgNVBAMMFHN5c3RlbTpub2RlOndvcmtlci0xMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEjlt9YuaNBLKdof1pXbaJDyP0iV4T8ru2bfIoUafn7NwTTliejnvamNlHDC9fz3xWwSFbCClwdNdrwk1lnFt2XaBOMEwGCSqGSIb3DQEJDjE/MD0wGQYDVR0RBBIwEIIId29ya2VyLTGHBAoAAwcwCwYDVR0PBAQDAgeAMBMGA1UdJQQMMAoGCCsGAQUFBwMBMAoGCCqGSM49BAMCA0cAMEQCIDkyc0tDPnkgERADXJRST+PWOEHXCQiYfz0r26o4g6jkAiAP2gz7njvkGLH0ceOJLHJjNXBe8nWvomVKa0HgSrcHFQ=='
const spiffeRequest =
  'MIIBCjCBsgIBADAAMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEY9YZWcM2KQzaEQh9MO9xODesDaJeryrSvcJLFrYrf86WIQgdus/zlereSHbGFDrduNLRq4Jdlyp7g8BGIdyy+aBQME4GCSqGSIb3DQEJDjFBMD8wMAYDVR0RBCkwJ4Ylc3BpZmZlOi8vY2x1c3Rlci5sb2NhbC9ucy9wcm9kL3NhL3dlYjALBgNVHQ8EBAMCBaAwCgYIKoZIzj0EAwIDRwAwRAIge7AyM5rrpIpm9GMxtleHePlVTXEGjZFDoxeNjbXxw0ICIG7aGGbOErQ8Nlv5ELay8zU+5qGJeYei4r15fxO8DFw/'
