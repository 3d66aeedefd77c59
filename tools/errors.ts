/** Writes docs/errors.md from the table of problems; `node tools/errors.ts`. The tests compare the file with what this makes. */
import { writeFile } from 'node:fs/promises'

import { type ProblemCode, type ProblemKind, problems } from '../src/errors.ts'

export const errorsText = (): string => {
  const entries = Object.entries(problems) as [ProblemCode, ProblemKind][]
  const rows = entries.map(
    ([code, { status, title, retryable, next }]) =>
      `| \`${code}\` | ${status} | ${retryable ? 'yes' : 'no'} | ${title} | ${next} |`,
  )
  return `${introduction}\n| code | status | retry | what it means | what to do |\n|---|---|---|---|---|\n${rows.join('\n')}\n`
}

const introduction = `# Errors

<!-- Made by tools/errors.ts from src/errors.ts; a test compares. Change the table there. -->

Every answer of 4xx or 5xx is a problem document (RFC 9457, \`application/problem+json\`):

| member | what it holds |
|---|---|
| \`type\` | \`/problems/<code>\`, relative to the API; the API serves the description there |
| \`title\`, \`status\`, \`code\` | as in the table below; \`code\` is stable, and what programs should look at |
| \`detail\` | what happened to this request, in a sentence |
| \`retryable\` | may the same request succeed later without being changed? The contract that controllers live by |
| \`retryAfter\` | seconds, the same as in Retry-After; with every 503 |
| \`violations\` | each failed check with \`check\` (a stable id), \`field\` (a JSON pointer: into what was sent, or into what it asks for, as \`/subject/organization\` and \`/names/0\`, the first of its names, where those of a body count as dns, ip, uri, email; empty where it is about all of it), \`value\` and \`reason\` |
| \`checks\`, \`notes\` | with a refusal by policy: every check with its outcome, and what was dropped or shortened |
| \`limit\` | with 429, and with \`limit.names\`: which limit it is, what it allows, and \`freesAt\`, when there may be room again; a request that never fits has none |
| \`issuer\` | with \`revocation.proof\`: whose the certificate is, told to who has signed by its key and named another |
| \`offset\` | octets into the decoded input, where a parser stopped |
| \`next\` | what to do |
| \`requestId\` | what to tell the operator; the log has the same |

A request that is \`retryable\` is safe to send again with the same Idempotency-Key: at most one certificate is ever
issued under one key. Nothing of a request comes back in an error but places and the values that checks name; what the
operator needs beyond that is in the log, never in the answer.

What was asked for and turned down is kept, and can be read at \`GET /v1/refusals\`; what never came so far as to be a
request of somebody for something is not: [auditing.md](auditing.md#refusals) tells them apart.
`

if (import.meta.main) await writeFile(new URL('../docs/errors.md', import.meta.url), errorsText())
