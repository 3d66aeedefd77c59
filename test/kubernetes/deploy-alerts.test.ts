/** Alert rules: promtool takes them and has seen each of them fire, and they are about metrics that there are. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'
import { parse, stringify } from 'yaml'

import { controllerMetrics } from '../../src/kubernetes/metrics.ts'
import { metricTable } from '../../src/metrics.ts'
import { slowTest } from '../helpers/slow.ts'
import { output } from '../interop/tools.ts'
import { home, type Json, manifests } from './manifests.ts'

t.setTimeout(300_000)

const folder = join(home, 'deploy/alerts')
const text = await readFile(join(folder, 'chancery.rules.yaml'), 'utf8')
const { groups } = parse(text) as Json
const rules: readonly Json[] = groups.flatMap(({ rules }: Json) => rules)

/** The labels of each. */
const metrics = new Map<string, readonly string[]>(
  Object.entries({ ...metricTable, ...controllerMetrics }).map(([name, { labels }]) => [name, labels]),
)

slowTest('promtool accepts the rules, and each fires when it should', async (t) => {
  t.match(await output('promtool', ['check', 'rules', join(folder, 'chancery.rules.yaml')]), /SUCCESS/)
  t.match(await output('promtool', ['test', 'rules', join(folder, 'chancery.test.yaml')]), /SUCCESS/)
  const tests = await readFile(join(folder, 'chancery.test.yaml'), 'utf8')
  for (const { alert } of rules) t.match(tests, `alertname="${alert}"`, `${alert} was seen to fire`)
})

t.test('they are about metrics that there are, by labels that these have', (t) => {
  const series = /\b(chancery_\w+?)(?:_bucket|_sum|_count)?(?:\{([^}]*)\})?(?![\w])/g
  for (const { alert, expr } of rules) {
    if (expr.startsWith('up{')) continue
    const found = [...expr.matchAll(series)]
    t.ok(found.length > 0, alert)
    // What a Prometheus puts to all of them.
    const known = new Set(['le', 'instance', 'cluster', 'namespace', 'job'])
    for (const [, name = '', matchers = ''] of found) {
      const metric = metrics.get(name)
      if (!metric) {
        t.fail(`${alert}: there is no ${name}`)
        continue
      }
      for (const label of metric) known.add(label)
      for (const [, label = ''] of matchers.matchAll(/(\w+)!?=/g))
        t.ok(metric.includes(label), `${alert}: ${name} has ${label}`)
    }
    for (const [, labels = ''] of expr.matchAll(/\bby \(([^)]*)\)/g))
      for (const label of labels.split(', ')) t.ok(known.has(label), `${alert}: by ${label}`)
  }
  t.end()
})

t.test('the rule of the docs by which one cause wakes people once is about alerts that do so', async (t) => {
  const operations = await readFile(join(home, 'docs/operations.md'), 'utf8')
  const { inhibit_rules: inhibiting } = parse(
    /^```yaml\n(inhibit_rules:\n[^`]+)```$/m.exec(operations)?.[1] ?? '',
  ) as Json
  for (const { source_matchers, target_matchers } of inhibiting)
    for (const [matcher = ''] of [source_matchers, target_matchers])
      for (const name of matcher.match(/Chancery\w+/g))
        t.equal(rules.find(({ alert }) => alert === name)?.labels.severity, 'page', name)
})

t.test('each says what is wrong and what it may be, and whether somebody is to get up', (t) => {
  for (const { alert, labels, annotations } of rules) {
    t.match(labels.severity, /^(page|warning)$/, alert)
    t.match(annotations, { summary: /\w/, description: /\.$/ }, alert)
  }
  t.equal(new Set(rules.map(({ alert }) => alert)).size, rules.length)
  t.end()
})

t.test('prometheus-operator gets the same, and misses a controller that never came', async (t) => {
  const rule = parse(await readFile(join(manifests, 'components/monitoring/prometheus-rule.yaml'), 'utf8'))
  const absent = / or absent\(chancery_controller_leader\)$/
  const idle = rule.spec.groups.at(-1).rules[0]
  t.match(idle, { alert: 'ChanceryControllerIdle', expr: absent })
  const file = await mkdtemp(join(tmpdir(), 'chancery-alerts-'))
  t.teardown(() => rm(file, { recursive: true }))
  const firing = 'group by (alertname) (ALERTS{alertstate="firing"})'
  const expected = [{ labels: '{alertname="ChanceryControllerIdle"}', value: 1 }]
  const unit = {
    input_series: [{ series: 'chancery_check_passed{check="key"}', values: '1x20' }],
    promql_expr_test: [
      { expr: firing, eval_time: '1m', exp_samples: [] },
      { expr: firing, eval_time: '3m', exp_samples: expected },
    ],
  }
  await writeFile(join(file, 'rules.yaml'), stringify({ groups: rule.spec.groups }))
  await writeFile(
    join(file, 'test.yaml'),
    stringify({ rule_files: ['rules.yaml'], evaluation_interval: '1m', tests: [unit] }),
  )
  t.match(await output('promtool', ['test', 'rules', join(file, 'test.yaml')]), /SUCCESS/)
  idle.expr = idle.expr.replace(absent, '')
  t.strictSame(rule.spec.groups, groups, 'made by tools/alerts.ts')
})

t.test('docs/operations.md names those that page', async (t) => {
  const page = await readFile(join(home, 'docs/operations.md'), 'utf8')
  const named = [...page.matchAll(/^\| `(Chancery\w+)` \|/gm)].map(([, name]) => name)
  t.strictSame(
    named,
    rules.filter(({ labels }) => labels.severity === 'page').map(({ alert }) => alert),
  )
})
