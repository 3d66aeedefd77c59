/** Puts the rules of deploy/alerts into the PrometheusRule that prometheus-operator reads. A test compares the two. */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')
const rules = await readFile(join(root, 'deploy/alerts/chancery.rules.yaml'), 'utf8')
// Elsewhere there need be no controller; where this is applied there is one.
const leader = 'unless max by (cluster, namespace, job) (chancery_controller_leader)\n          )\n'
if (!rules.includes(leader)) throw new Error(`no rule has ${leader}`)
const groups = rules
  .slice(rules.indexOf('groups:'))
  .replace(leader, `${leader}          or absent(chancery_controller_leader)\n`)
const head = `# Made by tools/alerts.ts of deploy/alerts/chancery.rules.yaml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: chancery
  namespace: chancery-system
  labels: { app.kubernetes.io/name: chancery }
spec:
`
await writeFile(
  join(root, 'deploy/kubernetes/components/monitoring/prometheus-rule.yaml'),
  head + groups.replace(/^(?=.)/gm, '  '),
)
