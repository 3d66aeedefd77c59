/** Other people's tools, run as their users run them. A missing one is a failure that says what installs it. */
import { execFile } from 'node:child_process'
import { access, constants } from 'node:fs/promises'
import { delimiter, join } from 'node:path'

export interface Ran {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Debian's package of each tool. */
const packages = {
  certtool: 'gnutls-bin',
  cfssl: 'golang-cfssl',
  curl: 'curl',
  go: 'golang-go golang-golang-x-mod-dev',
  ocsptool: 'gnutls-bin',
  kubectl: 'kubernetes-client',
  mosquitto: 'mosquitto',
  mosquitto_pub: 'mosquitto-clients',
  mosquitto_sub: 'mosquitto-clients',
  nginx: 'nginx-light',
  openssl: 'openssl',
  promtool: 'prometheus',
  wget: 'wget',
  zlint: 'zlint',
} as const

export type Tool = keyof typeof packages

/** Runs a tool to its end; never rejects for an exit code. */
export const run = (tool: Tool, args: readonly string[], input: string | Buffer = ''): Promise<Ran> =>
  new Promise((resolve, reject) => {
    const options = {
      encoding: 'utf8',
      maxBuffer: 16 * 1024 * 1024,
      env: { ...process.env, TZ: 'UTC', LC_ALL: 'C' },
    } as const
    const child = execFile(tool, args, options, (error, stdout, stderr) => {
      if (error !== null && typeof error.code !== 'number') reject(error)
      else resolve({ code: typeof error?.code === 'number' ? error.code : 0, stdout, stderr })
    })
    child.stdin?.on('error', () => {})
    child.stdin?.end(input)
  })

/** Standard output of a tool that must succeed. */
export const output = async (tool: Tool, args: readonly string[], input: string | Buffer = ''): Promise<string> => {
  const { code, stdout, stderr } = await run(tool, args, input)
  if (code !== 0) throw new Error(`${tool} ${args.join(' ')} ended with ${code}: ${stderr || stdout}`)
  return stdout
}

/** Throws one sentence for all that are missing. */
export const assertTools = async (...tools: readonly Tool[]): Promise<void> => {
  const found = await Promise.all(tools.map(findTool))
  const missing = tools.filter((_, i) => !found[i])
  if (missing.length === 0) return
  const install = [...new Set(missing.map((tool) => packages[tool]))].join(' ')
  throw new Error(`${missing.join(', ')} is missing: apt-get install -y ${install}`)
}

/** Throws where it is missing. */
export const pathOf = async (tool: Tool): Promise<string> => {
  await assertTools(tool)
  return (await findTool(tool)) as string
}

/** Daemons are not on the path of an ordinary user. */
const findTool = async (tool: Tool): Promise<string | undefined> => {
  for (const folder of [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin']) {
    const path = join(folder, tool)
    const isThere = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    )
    if (isThere) return path
  }
  return undefined
}
