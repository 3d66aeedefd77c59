/** `chancery completion`: a script for bash, zsh or fish, made from the commands themselves, so that it never lags behind. */
import { Argument, type Command, type Option } from 'commander'

export const addCompletionCommand = (program: Command): void => {
  program
    .command('completion')
    .description('print the completion of this command for bash, zsh or fish')
    .addArgument(new Argument('<shell>').choices(Object.keys(scripts)))
    .action((shell: keyof typeof scripts) => {
      process.stdout.write(scripts[shell](placesOf(program)))
    })
}

interface Word {
  readonly word: string
  readonly about: string
}

/** What may follow after these verbs. */
interface Place {
  /** The verbs, each with a space before it; empty at the beginning. */
  readonly after: string
  readonly verbs: readonly Word[]
  readonly options: readonly Word[]
  /** Options that are followed by a file, and by something that nobody can guess. */
  readonly fileOptions: readonly string[]
  readonly valueOptions: readonly string[]
  /** What its own arguments may be. */
  readonly choices: readonly string[]
  readonly takesFile: boolean
}

const placesOf = (command: Command, after = ''): readonly Place[] => {
  const options = command.createHelp().visibleOptions(command)
  const withValue = options.filter(({ required, optional }) => required || optional)
  const place = {
    after,
    verbs: command.commands.map((verb) => ({ word: verb.name(), about: verb.description() })),
    options: options.map((option) => ({ word: longOf(option), about: option.description })),
    fileOptions: withValue.filter(isOfFile).map(longOf),
    valueOptions: withValue.filter((option) => !isOfFile(option)).map(longOf),
    choices: command.registeredArguments.flatMap(({ argChoices }) => argChoices ?? []),
    takesFile: command.registeredArguments.some((argument) => files.has(argument.name())),
  }
  return [place, ...command.commands.flatMap((verb) => placesOf(verb, `${after} ${verb.name()}`))]
}

const longOf = ({ long, short }: Option): string => long ?? short ?? ''
const isOfFile = ({ flags }: Option): boolean => files.has(/<([a-z]+)/.exec(flags)?.[1] ?? '')
/** What files and folders are called in what commands take; a key and a place may be something else as well. */
const files: ReadonlySet<string> = new Set([
  'file',
  'path',
  'chain',
  'csr',
  'root',
  'parameters',
  'folder',
  'place',
  'key',
])

const bash = (
  places: readonly Place[],
): string => `# bash completion for chancery: source it, or put it into /etc/bash_completion.d
_chancery() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD - 1]} at='' i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$at \${COMP_WORDS[i]}" in
      ${verbPatterns(places)}) at="$at \${COMP_WORDS[i]}" ;;
    esac
  done
  local words='' files=''
  case "$at" in
${places.map(bashCase).join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
  if [[ -n $files && $cur != -* ]]; then
    local IFS=$'\\n'
    compopt -o filenames 2>/dev/null
    COMPREPLY+=($(compgen -f -- "$cur"))
  fi
}
complete -F _chancery chancery
`

const bashCase = ({ after, verbs, options, choices, fileOptions, valueOptions, takesFile }: Place): string => {
  const words = [...verbs.map(({ word }) => word), ...choices, ...options.map(({ word }) => word)].join(' ')
  return `    '${after}')
      case "$prev" in${caseOf(fileOptions, 'files=1')}${caseOf(valueOptions, ':')}
        *) words='${words}'${takesFile ? ' files=1' : ''} ;;
      esac ;;`
}

const zsh = (places: readonly Place[]): string => `#compdef chancery
# zsh completion for chancery: source it after compinit, or put it as _chancery into a folder of fpath
_chancery() {
  local at='' i prev=\${words[CURRENT-1]}
  local -a words_here options
  for ((i = 2; i < CURRENT; i++)); do
    case "$at \${words[i]}" in
      ${verbPatterns(places)}) at="$at \${words[i]}" ;;
    esac
  done
  case "$at" in
${places.map(zshCase).join('\n')}
  esac
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _chancery "$@"; else compdef _chancery chancery; fi
`

const zshCase = ({ after, verbs, options, choices, fileOptions, valueOptions, takesFile }: Place): string => {
  const words = [...verbs, ...choices.map((word) => ({ word, about: '' }))]
  const rest = takesFile ? '_files' : words.length > 0 ? '_describe -t commands command words_here' : 'true'
  return `    '${after}')
      case "$prev" in${caseOf(fileOptions, '_files; return')}${caseOf(valueOptions, '_message value; return')}
      esac
      words_here=(${words.map(zshWord).join(' ')})
      options=(${options.map(zshWord).join(' ')})
      if [[ $PREFIX == -* ]]; then _describe -o -t options option options; else ${rest}; fi ;;`
}

/** A colon parts a word from what it means. */
const zshWord = ({ word, about }: Word): string =>
  `'${word.replaceAll(':', '\\:')}${about && ':'}${about.replaceAll("'", "'\\''").replaceAll('\n', ' ')}'`

/** Its own `complete` knows options and files; what it is told is when each is one. */
const fish = (
  places: readonly Place[],
): string => `# fish completion for chancery: source it, or put it as chancery.fish into ~/.config/fish/completions
function __chancery_at
    set -l at
    for word in (commandline -opc)[2..]
        set -l next $at $word
        contains -- "$next" ${places.map(({ after }) => `'${after.trim()}'`).join(' ')}
        and set at $next
    end
    test "$at" = "$argv"
end
complete -c chancery -f
${places.flatMap(fishLines).join('\n')}
`

const fishLines = (place: Place): readonly string[] => {
  const { after, verbs, options, choices, fileOptions, valueOptions, takesFile } = place
  const here = `complete -c chancery -n '__chancery_at${after}'`
  const taking = (word: string): string =>
    fileOptions.includes(word) ? ' -rF' : valueOptions.includes(word) ? ' -x' : ''
  return [
    ...verbs.map(({ word, about }) => `${here} -a ${word} -d ${fishWord(about)}`),
    ...choices.map((word) => `${here} -a ${word}`),
    ...options.map(({ word, about }) => `${here} -l ${word.replace(/^--/, '')}${taking(word)} -d ${fishWord(about)}`),
    ...(takesFile ? [`${here} -F`] : []),
  ]
}

const fishWord = (text: string): string => `'${text.replaceAll(/[\\']/g, '\\$&').replaceAll('\n', ' ')}'`

const verbPatterns = (places: readonly Place[]): string =>
  places
    .filter(({ after }) => after !== '')
    .map(({ after }) => `'${after}'`)
    .join('|')

const caseOf = (words: readonly string[], then: string): string =>
  words.length === 0 ? '' : `\n        ${words.join('|')}) ${then} ;;`

const scripts = { bash, zsh, fish }
