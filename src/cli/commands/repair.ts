import { Option } from 'commander'
import { HoldfastError } from '../../base/errors.ts'
import { action, type CommandContext, type Register } from '../command.ts'
import { type ConnectionOptions, withAdminOptions } from '../connection.ts'
import { repairOwn, showPlan } from '../repair-own.ts'

interface RepairOptions extends ConnectionOptions {
  dryRun?: boolean
  cid?: string
  report?: string
  accept?: string
}

async function repair(context: CommandContext, options: RepairOptions): Promise<void> {
  if (options.report !== undefined && options.cid === undefined)
    throw new HoldfastError('BAD_INPUT', '--report goes with --cid: it says where the report is written')
  if (options.dryRun === true) return await showPlan(context, options)
  if (options.accept === undefined && options.cid === undefined) return await repairOwn(context, options)
  // Hashes and codecs, which no other start needs.
  const { acceptFile, repairContent } = await import('../repair-by-anybody.ts')
  if (options.accept !== undefined) await acceptFile(context, options, options.accept)
  else await repairContent(context, options, options.cid!, options.report)
}

export const register: Register = (program, run) => {
  const command = program
    .command('repair')
    .summary('repair now, or see what would be; repair for others')
    .description(
      "Brings all of the gateway's segments back to full margin now, as far as providers can be found; it also happens by " +
        'itself, some of it later, since several shards of a segment are rebuilt at little more than the cost of one. With ' +
        '--cid it rebuilds a content that this gateway does not own, from what is public: no key is needed, and none is ' +
        'there. The owner takes that over by the report, of which nothing is believed that providers do not prove.'
    )
    .addOption(new Option('--dry-run', 'the plan with totals, and nothing moves').conflicts(['cid', 'accept']))
    .addOption(new Option('--cid <root>', 'CID of the content, as x-holdfast-cid shows it').conflicts('accept'))
    .option('--report <file>', 'with --cid: where the signed report is written (default: ROOT.repair)')
    .option('--accept <file>', "take over by somebody's report what is lost of this gateway's own content")
  const special = {
    ok: 'every shard is there; with --accept: all that was lost and is reported has been taken over; --dry-run: always',
    network: 'the gateway does not answer, or some shards could not be helped or taken over now: try again later',
    fault: 'with --accept: a provider that the report names did not prove what it is said to have'
  }
  action<RepairOptions>(
    withAdminOptions(command),
    run,
    { names: ['ok', 'failure', 'usage', 'notFound', 'network', 'denied', 'fault', 'interrupted'], special },
    repair
  )
}
