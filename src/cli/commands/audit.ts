import path from 'node:path'
import { Option } from 'commander'
import type { AuditRound, AuditView, Listing } from '../../admin/backend.ts'
import { HoldfastError } from '../../base/errors.ts'
import { type AdminClient, createAdminClient } from '../admin-client.ts'
import { action, type CommandContext, optionParser, type Register } from '../command.ts'
import { adminOrigin, type ConnectionOptions, withAdminOptions } from '../connection.ts'
import { Exit, exitCodes } from '../exit-codes.ts'
import { table } from '../output.ts'
import { formatBytes, parseInteger, parseObjectUrl } from '../units.ts'
import { type Sink, stdoutSink, writeWholeFile } from '../whole-file.ts'

interface AuditOptions extends ConnectionOptions {
  list?: boolean
  limit?: number
  export?: string
  verify?: string
}

const listedDefault = 100
const listedMax = 1000

/**
 * What `POST /v1/audit` takes.
 *
 * @throws HoldfastError `BAD_INPUT`
 */
function bodyOf(target: string | undefined): object {
  if (target === undefined) return {}
  if (target.startsWith('s3:')) {
    const { bucket, key } = parseObjectUrl(target)
    return { object: `${bucket}/${key}` }
  }
  if (/^[A-Za-z0-9]{1,128}$/.test(target)) return { provider: target }
  throw new HoldfastError('BAD_INPUT', `"${target}" is neither a provider's peer id nor an object, s3://BUCKET/KEY`)
}

/** `298 ok, 1 missing`. */
const counted = (outcomes: Record<string, number>): string =>
  Object.entries(outcomes)
    .filter(([, count]) => count > 0)
    .map(([name, count]) => `${count} ${name}`)
    .join(', ')

const sumOf = (outcomes: Record<string, number>): number => Object.values(outcomes).reduce((sum, n) => sum + n, 0)
const unprovedOf = ({ outcomes }: AuditRound): number => sumOf(outcomes) - (outcomes.ok ?? 0)
const faultsOf = ({ outcomes }: AuditRound): number => (outcomes.missing ?? 0) + (outcomes.wrong ?? 0)

function verdictOf(round: AuditRound): string {
  if (sumOf(round.outcomes) === 0) return 'nothing to be proved'
  if (unprovedOf(round) === 0) return 'all proved'
  const faults = faultsOf(round)
  return faults === 0 ? `${unprovedOf(round)} not proved, none known to be lost` : `${faults} MISSING OR WRONG`
}

function renderRound(round: AuditRound): string {
  const { audits, outcomes, unproved } = round
  const alone = audits.filter(({ countersigned }) => !countersigned).length
  const left = unprovedOf(round) - unproved.length
  return [
    `Custody:     ${verdictOf(round)}`,
    `Audits:      ${audits.length}${alone === 0 ? '' : `, ${alone} not signed by the provider`}`,
    `Challenges:  ${sumOf(outcomes)}${sumOf(outcomes) === 0 ? '' : `: ${counted(outcomes)}`}`,
    ...(unproved.length === 0
      ? []
      : [
          '',
          table(unproved, [
            { title: 'OUTCOME', value: ({ outcome }) => outcome },
            { title: 'SHARD', value: ({ cid }) => cid },
            { title: 'PROVIDER', value: ({ provider }) => provider }
          ])
        ]),
    ...(left > 0 ? [`and ${left} more`] : [])
  ].join('\n')
}

async function auditNow({ output }: CommandContext, admin: AdminClient, target: string | undefined): Promise<void> {
  const round = await admin.request<AuditRound>('POST', '/v1/audit', bodyOf(target))
  output.result(round, () => renderRound(round))
  if (faultsOf(round) > 0) throw new Exit(exitCodes.fault)
  if (unprovedOf(round) > 0) throw new Exit(exitCodes.network)
}

async function list({ output }: CommandContext, admin: AdminClient, limit: number): Promise<void> {
  const answer = await admin.request<Listing<AuditView>>('GET', `/v1/audits?limit=${limit}`)
  output.result(answer, () =>
    answer.items.length === 0
      ? 'no audits yet'
      : table(answer.items, [
          { title: 'ASKED', value: ({ askedAt }) => askedAt },
          { title: 'PROVIDER', value: ({ provider }) => provider },
          { title: 'TOOK', value: ({ tookMs }) => `${Math.round(tookMs)} ms`, align: 'right' },
          { title: 'SIGNED', value: ({ countersigned }) => (countersigned ? 'by both' : 'by the auditor') },
          { title: 'CHALLENGES', value: ({ challenges }) => String(challenges), align: 'right' },
          { title: 'OUTCOMES', value: ({ outcomes }) => counted(outcomes) }
        ])
  )
  if (answer.isTruncated) output.note(`There are more; --limit shows up to ${listedMax}.`)
}

async function exportTo({ output, signal }: CommandContext, admin: AdminClient, file: string): Promise<void> {
  const copy = async (sink: Sink): Promise<number> => {
    let bytes = 0
    for await (const chunk of admin.download('/v1/audits/export')) {
      await sink(chunk)
      bytes += chunk.length
    }
    return bytes
  }
  if (file === '-') {
    await copy(stdoutSink(output, signal))
    return
  }
  const bytes = await writeWholeFile(file, copy)
  output.result({ file: path.resolve(file), bytes }, () => `${file}  ${formatBytes(bytes)}`)
}

async function verify(context: CommandContext, file: string): Promise<void> {
  // Curves and signatures, which no other use of this command needs.
  const { verifyFile } = await import('../audit-verification.ts')
  const { holds } = await verifyFile(context, file)
  if (!holds) throw new Exit(exitCodes.fault)
}

/** @throws HoldfastError `BAD_INPUT` for what commander's conflicts cannot express */
function checkOptions(options: AuditOptions, target: string | undefined, isJson: boolean): void {
  const mode = (['list', 'export', 'verify'] as const).find((name) => options[name] !== undefined)
  if (mode !== undefined && target !== undefined)
    throw new HoldfastError('BAD_INPUT', `--${mode} takes no target: it is about all audits`)
  if (options.limit !== undefined && mode !== 'list')
    throw new HoldfastError('BAD_INPUT', '--limit is for --list; an audit challenges all there is')
  if (options.export === '-' && isJson)
    throw new HoldfastError('BAD_INPUT', '--json and - both want standard output; leave one out')
}

async function audit(context: CommandContext, options: AuditOptions, [target]: string[]): Promise<void> {
  checkOptions(options, target, context.output.isJson)
  if (options.verify !== undefined) return await verify(context, options.verify)
  bodyOf(target) // what is wrong with it is said before a gateway is looked for
  const admin = createAdminClient(await adminOrigin(options, context), context.signal)
  if (options.list === true) return await list(context, admin, options.limit ?? listedDefault)
  if (options.export !== undefined) return await exportTo(context, admin, options.export)
  await auditNow(context, admin, target)
}

export const register: Register = (program, run) => {
  const command = program
    .command('audit')
    .summary('have shards proved now; export and verify what was signed')
    .description(
      'Has providers prove now that they hold the shards of an object, or of one provider, or all there are. ' +
        'Audits also run all the time without it: their transcripts, signed by both sides, can be listed, exported, ' +
        'and verified anywhere.'
    )
    .argument('[target]', "a provider's peer id, or s3://BUCKET/KEY (default: everything)")
    .addOption(new Option('--list', 'show the last audits instead').conflicts(['export', 'verify']))
    .option(
      '--limit <count>',
      `with --list: how many (default: ${listedDefault})`,
      optionParser((text) => parseInteger(text, 'a count', 1, listedMax))
    )
    .addOption(
      new Option('--export <file>', 'write the transcripts that the gateway keeps to a file, - for stdout').conflicts(
        'verify'
      )
    )
    .option('--verify <file>', 'replay a file of transcripts, - for stdin; needs neither network nor gateway')
  const special = {
    ok: 'all proved; with --verify: nothing refuted, nothing damaged',
    notFound: 'no such bucket, object, provider or file',
    network: 'the gateway does not answer, or shards were not proved and none is known to be lost: try again later',
    fault: 'shards are missing or wrong; with --verify: an auditor is refuted, or the file is damaged'
  }
  action<AuditOptions>(
    withAdminOptions(command),
    run,
    { names: ['ok', 'failure', 'usage', 'notFound', 'network', 'denied', 'fault', 'interrupted'], special },
    audit
  )
}
