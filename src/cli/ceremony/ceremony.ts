/** `chancery ceremony`: the offline root's acts, at a machine without network or database. */
import type { Command } from 'commander'

export const addCeremonyCommand = (program: Command): void => {
  const ceremony = program
    .command('ceremony')
    .description('what is done with an offline root, by parameters in a reviewed file; docs/ceremonies.md tells how')
  for (const [kind, { input, description }] of Object.entries(ceremonies)) {
    ceremony
      .command(`${kind} <parameters>${input}`)
      .description(description)
      .option('--yes', 'confirm every step beforehand: for scripts')
      .action(async (parameters: string, ...[other, options]: readonly unknown[]) => {
        const { runCeremony } = await import('./run.ts')
        const [file, { yes = false }] = (input === '' ? [undefined, other] : [other, options]) as [
          string | undefined,
          { readonly yes?: boolean },
        ]
        await runCeremony(kind as CeremonyKind, { parameters, file, yes })
      })
  }
}

type CeremonyKind = keyof typeof ceremonies

const ceremonies = {
  root: { input: '', description: 'make the key of a root, and its self-signed certificate' },
  sign: { input: ' <csr>', description: 'certify an intermediate by its request (PKCS#10, PEM)' },
  crl: { input: '', description: "issue the root's list of revoked intermediates" },
  cross: {
    input: ' <root>',
    description: 'certify another root (its certificate, PEM), so that chains of it are accepted under this one',
  },
} as const
