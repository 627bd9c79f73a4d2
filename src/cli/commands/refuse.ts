import path from 'node:path'
import { HoldfastError } from '../../base/errors.ts'
import type { ListShown, RefusalsShown, RefuseAnswer } from '../../provider/refuse-routes.ts'
import { action, type CommandContext, type Register } from '../command.ts'
import { defaultDataDirectory } from '../connection.ts'
import { table } from '../output.ts'
import { type LocalProvider, localProvider } from '../provider-client.ts'
import { formatBytes } from '../units.ts'

interface RefuseOptions {
  data?: string
  reason?: string
  now?: boolean
  list?: string
  unlist?: string
  undo?: string
  show?: boolean
}

interface UndoAnswer {
  cid: string
  stillRefused: { list: string | null; root: string | null } | null
}

/** What is done about blocks that are kept here. */
const outcome = (held: number, isNow: boolean): string => {
  if (held === 0) return 'Nothing of it is kept here.'
  const blocks = held === 1 ? '1 block' : `${held} blocks`
  return isNow
    ? `${blocks} that were kept here are deleted; their owners are told.`
    : `${blocks} of it are kept until their owners have brought them elsewhere, a day at most, and served to nobody.`
}

function renderRefused({ cid, parts, isWhole, held }: RefuseAnswer, isNow: boolean): string {
  const more = isWhole
    ? ''
    : '\nNot all that it is made of is known: a block that says so was found nowhere. It is looked for every hour.'
  const what = parts === 0 ? `${cid} is refused.` : `${cid} is refused, with the ${parts} blocks that it is made of.`
  return `${what} ${outcome(held, isNow)}${more}`
}

function renderList(list: ListShown): string {
  const name = list.name === null ? list.path : `${list.name} (${list.path})`
  const lines = [
    `${name}: ${list.rules} rules in force, ${list.notApplicable} that say nothing about blocks, ${list.problemCount} lines that cannot be read`
  ]
  if (list.failure !== null) lines.push(`  NOT READ the last time: ${list.failure}`)
  for (const { line, why } of list.problems) lines.push(`  line ${line}: ${why}`)
  if (list.problemCount > list.problems.length) lines.push(`  and ${list.problemCount - list.problems.length} more`)
  return lines.join('\n')
}

function renderShown({ commands, lists, kept, brought }: RefusalsShown): string {
  const shown =
    commands.length === 0
      ? 'Nothing is refused by command.'
      : table(commands, [
          { title: 'CID', value: ({ cid }) => cid },
          { title: 'SINCE', value: ({ at }) => at },
          {
            title: 'BLOCKS',
            value: ({ blocks, isExpanded }) => `${blocks + 1}${isExpanded ? '' : '+'}`,
            align: 'right'
          },
          { title: 'NOW', value: ({ now }) => (now ? 'yes' : 'no') },
          { title: 'REASON', value: ({ reason }) => reason }
        ])
  const { moved, movedBytes, sentBytes } = brought
  const rest = [
    ...(kept === 0 ? [] : [`${kept} refused blocks are kept until they have been brought elsewhere.`]),
    ...(sentBytes === 0
      ? []
      : [
          `${moved} were brought elsewhere since the start (${formatBytes(movedBytes)}; ${formatBytes(sentBytes)} sent).`
        ])
  ]
  return [
    shown,
    ...(lists.length === 0 ? [] : ['', ...lists.map(renderList)]),
    ...(rest.length === 0 ? [] : ['', ...rest])
  ].join('\n')
}

function renderUndone({ cid, stillRefused }: UndoAnswer): string {
  if (stillRefused === null)
    return `${cid} is taken again. Gateways that were told will not offer it here all the same.`
  const by = stillRefused.list === null ? `as a part of ${stillRefused.root}` : `by the list ${stillRefused.list}`
  return `${cid} is not refused by command any more, but still ${by}.`
}

async function give(
  { output }: CommandContext,
  provider: LocalProvider,
  cid: string | undefined,
  options: RefuseOptions
) {
  const isNow = options.now === true
  if (options.show === true) {
    const shown = await provider.request<RefusalsShown>('GET', '/refuse')
    output.result(shown, () => renderShown(shown))
  } else if (options.undo !== undefined) {
    const undone = await provider.request<UndoAnswer>('POST', '/refuse/undo', { cid: options.undo })
    output.result(undone, () => renderUndone(undone))
  } else if (options.list !== undefined) {
    const list = await provider.request<ListShown>('POST', '/refuse/list', {
      path: path.resolve(options.list),
      now: isNow
    })
    output.result(list, () => renderList(list))
  } else if (options.unlist !== undefined) {
    const gone = await provider.request<{ path: string }>('POST', '/refuse/unlist', {
      path: path.resolve(options.unlist)
    })
    output.result(gone, () => `What ${gone.path} says is not in force any more.`)
  } else {
    const reason = options.reason === undefined ? {} : { reason: options.reason }
    const refused = await provider.request<RefuseAnswer>('POST', '/refuse', { cid, now: isNow, ...reason })
    output.result(refused, () => renderRefused(refused, isNow))
  }
}

async function refuse(context: CommandContext, options: RefuseOptions, [cid]: string[]): Promise<void> {
  const { list, unlist, undo, show, now, reason } = options
  const asked = [cid, list, unlist, undo, show === true ? '' : undefined].filter((one) => one !== undefined)
  if (asked.length !== 1) throw new HoldfastError('BAD_INPUT', 'give one of CID, --list, --unlist, --undo and --show')
  if (reason !== undefined && cid === undefined) throw new HoldfastError('BAD_INPUT', '--reason goes with a CID')
  if (now === true && cid === undefined && list === undefined)
    throw new HoldfastError('BAD_INPUT', '--now goes with a CID or --list')
  const directory = path.resolve(options.data ?? defaultDataDirectory)
  await give(context, await localProvider(directory, context.signal), cid, options)
}

export const register: Register = (program, run) => {
  const command = program
    .command('refuse')
    .summary('have a provider refuse a content')
    .description(
      'Has the provider that runs on a directory of this machine refuse a block, or a whole content by its root: it is not taken, served or proved any more, ' +
        'and those who had it kept here are told, signed, so that they bring it elsewhere. That costs the provider no score, and what it was paid for keeping it. ' +
        'Denylists in the compact format of IPFS are read, and read again when they change.'
    )
    .argument('[cid]', 'a shard, a manifest, or a root')
    .option('--data <dir>', `the provider's directory (default: ./${defaultDataDirectory})`)
    .option('--reason <text>', 'why, for whoever asks for it')
    .option('--now', 'delete what is kept of it at once, instead of when it has been brought elsewhere')
    .option('--list <file>', 'what a denylist says, now and whenever it changes')
    .option('--unlist <file>', 'a denylist no more')
    .option('--undo <cid>', 'what was refused by command no more')
    .option('--show', 'what is refused, and by what')
  const special = {
    notFound: 'that is not refused, or no such list is in force',
    network: 'no provider is running on the directory'
  }
  action<RefuseOptions>(
    command,
    run,
    { names: ['ok', 'failure', 'usage', 'notFound', 'network', 'interrupted'], special },
    refuse
  )
}
