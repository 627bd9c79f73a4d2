import type { KeyView, NewKey } from '../../admin/backend.ts'
import { createAdminClient } from '../admin-client.ts'
import { action, type CommandContext, type Register } from '../command.ts'
import { adminOrigin, type ConnectionOptions, withAdminOptions } from '../connection.ts'
import { table } from '../output.ts'

interface CreateOptions extends ConnectionOptions {
  account?: string
}

async function create(context: CommandContext, options: CreateOptions): Promise<void> {
  const admin = createAdminClient(await adminOrigin(options, context), context.signal)
  const key = await admin.request<NewKey>(
    'POST',
    '/v1/keys',
    options.account === undefined ? {} : { account: options.account }
  )
  context.output.result(key, () =>
    [
      `Access key:  ${key.accessKeyId}`,
      `Secret key:  ${key.secretAccessKey}`,
      `Account:     ${key.account}`,
      '',
      'The secret is not shown again.'
    ].join('\n')
  )
}

async function list(context: CommandContext, options: ConnectionOptions): Promise<void> {
  const admin = createAdminClient(await adminOrigin(options, context), context.signal)
  const answer = await admin.request<{ keys: KeyView[] }>('GET', '/v1/keys')
  context.output.result(answer, () =>
    table(answer.keys, [
      { title: 'ACCESS KEY', value: (key) => key.accessKeyId },
      { title: 'ACCOUNT', value: (key) => key.account },
      { title: 'CREATED', value: (key) => key.createdAt }
    ])
  )
}

async function revoke(context: CommandContext, options: ConnectionOptions, [accessKeyId]: string[]): Promise<void> {
  const admin = createAdminClient(await adminOrigin(options, context), context.signal)
  await admin.request('DELETE', `/v1/keys/${encodeURIComponent(accessKeyId!)}`)
  context.output.result({ accessKeyId, revoked: true }, () => `${accessKeyId} no longer opens anything`)
}

export const register: Register = (program, run) => {
  const key = program
    .command('key')
    .summary('make, list and revoke access keys')
    .description('Manages the access keys of a gateway. Run it on the machine the gateway runs on.')
  const exits = { names: ['ok', 'failure', 'usage', 'network', 'denied', 'interrupted'] as const }
  const createCommand = key
    .command('create')
    .description('Makes an access key and shows its secret, this once.')
    .option('--account <name>', 'account that owns what is made with the key (default: the one of the first key)')
  action<CreateOptions>(withAdminOptions(createCommand), run, exits, create)
  action(
    withAdminOptions(key.command('list').description('Lists the access keys, without their secrets.')),
    run,
    exits,
    list
  )
  const revokeCommand = key
    .command('revoke')
    .description('Revokes an access key: requests signed with it are refused from now on.')
    .argument('<access-key-id>', 'the key to revoke')
  action(
    withAdminOptions(revokeCommand),
    run,
    { names: ['ok', 'failure', 'usage', 'notFound', 'network', 'denied', 'interrupted'] },
    revoke
  )
}
