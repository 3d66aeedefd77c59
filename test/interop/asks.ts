/** What clients of the seeded profiles ask for. */
export interface Made {
  readonly subj: string
  readonly names: readonly string[]
  /** What the certificate says of the subject. */
  readonly subject: readonly string[]
}

/** What a client of each profile asks for. */
export const asks: Readonly<Record<string, Made>> = {
  server: {
    subj: '/CN=www.example.com',
    names: ['dns:www.example.com', 'ip:127.0.0.1'],
    subject: ['CN=www.example.com'],
  },
  client: { subj: '/', names: ['dns:ci.build.example.internal'], subject: [] },
  peer: { subj: '/', names: ['dns:localhost', 'ip:::1'], subject: [] },
  'kube-apiserver': {
    subj: '/C=US/O=Kubernetes/CN=kube-apiserver',
    names: ['dns:kubernetes', 'dns:kubernetes.default.svc.cluster.local', 'ip:10.96.0.1', 'ip:fd00::1'],
    subject: ['CN=kube-apiserver'],
  },
  'kube-apiserver-kubelet-client': {
    subj: '/CN=kube-apiserver-kubelet-client',
    names: [],
    subject: ['CN=kube-apiserver-kubelet-client', 'O=kubeadm:cluster-admins'],
  },
  'kubelet-serving': {
    subj: '/O=system:nodes/CN=system:node:worker-1',
    names: ['dns:worker-1', 'ip:10.0.3.7'],
    subject: ['CN=system:node:worker-1', 'O=system:nodes'],
  },
  'kubelet-client': {
    subj: '/O=system:nodes/CN=system:node:worker-1',
    names: [],
    subject: ['CN=system:node:worker-1', 'O=system:nodes'],
  },
  'kube-controller-manager': { subj: '/', names: [], subject: ['CN=system:kube-controller-manager'] },
  'kube-scheduler': { subj: '/CN=system:kube-scheduler', names: [], subject: ['CN=system:kube-scheduler'] },
  'kubernetes-admin': {
    subj: '/O=kubeadm:cluster-admins/CN=kubernetes-admin',
    names: [],
    subject: ['CN=kubernetes-admin', 'O=kubeadm:cluster-admins'],
  },
  'webhook-serving': { subj: '/', names: ['dns:hook.prod.svc', 'dns:hook.prod.svc.cluster.local'], subject: [] },
  'spiffe-workload': { subj: '/', names: ['uri:spiffe://cluster.local/ns/prod/sa/web'], subject: [] },
  'etcd-server': {
    subj: '/CN=kube-etcd',
    names: ['dns:control-1', 'ip:10.0.0.1', 'ip:::1'],
    subject: ['CN=kube-etcd'],
  },
  'etcd-peer': { subj: '/CN=control-1', names: ['dns:control-1', 'ip:10.0.0.1'], subject: ['CN=control-1'] },
  'etcd-client': { subj: '/CN=kube-apiserver-etcd-client', names: [], subject: ['CN=kube-apiserver-etcd-client'] },
  'front-proxy-client': { subj: '/', names: [], subject: ['CN=front-proxy-client'] },
}
