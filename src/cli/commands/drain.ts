import path from 'node:path'
import { HoldfastError, isCode } from '../../base/errors.ts'
import type { DrainState } from '../../provider/drain.ts'
import { action, type CommandContext, type Register } from '../command.ts'
import { defaultDataDirectory } from '../connection.ts'
import { Exit, exitCodes } from '../exit-codes.ts'
import { createProgress, type Progress } from '../progress.ts'
import { localProvider } from '../provider-client.ts'
import { formatBytes } from '../units.ts'

interface DrainOptions {
  data: string
  cancel?: boolean
}

const interruptedNote =
  'interrupted; the provider goes on draining, over restarts too. "holdfast drain" shows how far it has come, ' +
  '"holdfast drain --cancel" takes it back'

const counted = (count: number, name: string): string => `${count} ${name}${count === 1 ? '' : 's'}`

function summary({ moved, movedBytes, released, sentBytes }: DrainState): string {
  const parts = [
    `${counted(moved, 'shard')} handed over (${formatBytes(movedBytes)}; ${formatBytes(sentBytes)} sent)`,
    `${released} that ${released === 1 ? 'was' : 'were'} not needed any more`
  ]
  return parts.join(', ')
}

async function drain({ output, signal }: CommandContext, options: DrainOptions): Promise<void> {
  const directory = path.resolve(options.data)
  const provider = await localProvider(directory, signal)
  if (options.cancel === true) {
    const state = await provider.request<DrainState>('POST', '/drain', { cancel: true })
    output.result(state, () => `It stays, and takes new shards; ${counted(state.leases, 'lease')} left.`)
    return
  }
  const begun = await provider.request<DrainState>('POST', '/drain', {})
  const progress = await createProgress(output, 'handing over', begun.leasedBytes)
  const teller = new Teller(output, progress, begun)
  let last = begun
  let isDone = false
  try {
    for await (const state of provider.stream<DrainState>('GET', '/drain')) {
      teller.tell(state)
      last = state
    }
    isDone = last.state === 'done'
  } catch (error) {
    if (signal.aborted) output.note(interruptedNote)
    if (!isCode(error, 'OFFLINE')) throw error
    throw new HoldfastError('OFFLINE', 'the provider went away; it goes on draining when it is started again', {
      cause: error
    })
  } finally {
    progress.stop(isDone)
  }
  if (last.state === 'off') {
    output.note('somebody has told the provider to stay')
    throw new Exit(exitCodes.failure)
  }
  if (!output.isJson) output.result(last, () => `Nothing is left that anyone leases: ${summary(last)}.`)
}

/** Says how it goes: every change with `--json`, else a bar, and what is waited for when that changes. */
class Teller {
  readonly #output: CommandContext['output']
  readonly #progress: Progress
  #leasedBytes: number
  #said = ''
  #waitingFor = ''

  constructor(output: CommandContext['output'], progress: Progress, begun: DrainState) {
    this.#output = output
    this.#progress = progress
    this.#leasedBytes = begun.leasedBytes
  }

  tell(state: DrainState): void {
    if (this.#output.isJson) {
      const line = JSON.stringify(state)
      if (line !== this.#said) this.#output.stdout.write(`${line}\n`)
      this.#said = line
      return
    }
    // It never grows, but for leases that an owner renews while it is asked.
    this.#progress.add(Math.max(0, this.#leasedBytes - state.leasedBytes))
    this.#leasedBytes = Math.min(this.#leasedBytes, state.leasedBytes)
    const waitingFor = state.waiting.map(({ owner, why }) => `waiting for ${owner}: ${why}`).join('\n')
    if (waitingFor !== this.#waitingFor && waitingFor !== '') this.#output.note(waitingFor)
    this.#waitingFor = waitingFor
  }
}

export const register: Register = (program, run) => {
  const command = program
    .command('drain')
    .summary('have a provider leave: hand over all that it keeps')
    .description(
      'Has the provider that runs on this machine leave well: it takes nothing new, and brings every shard that anyone leases to where its owner wants it, once each. ' +
        'It ends when nothing is left; until then it keeps trying, and says what it waits for: an owner that does not answer, or shards that nobody else can take now. ' +
        'Interrupted, or killed and started again, the provider goes on draining. Run it again to see how far it has come.'
    )
    .option('--data <dir>', 'directory of the provider', defaultDataDirectory)
    .option('--cancel', 'stay after all: take new shards again, and keep what is left')
  const special = {
    ok: 'nothing is left that anyone leases; the provider may be stopped',
    failure: 'it failed, or was told to stay meanwhile',
    network: 'no provider runs there, or it went away: started again, it goes on draining',
    interrupted: 'interrupted before nothing was left, whatever it waited for: the provider goes on draining'
  }
  action<DrainOptions>(command, run, { names: ['ok', 'failure', 'usage', 'network', 'interrupted'], special }, drain)
}
