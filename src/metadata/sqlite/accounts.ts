import { HoldfastError } from '../../base/errors.ts'
import type { AccountIndex, ProviderIndex } from '../index-store.ts'
import type { Database } from './database.ts'
import { accessKeyOf, accessKeyValues, knownProviderOf, knownProviderValues } from './rows.ts'

/** Providers remembered across restarts, those seen last: a few suffice to find the others. */
const knownProvidersMax = 10_000

export function sqliteAccounts(database: Database): AccountIndex {
  const columns = 'access_key_id, sealed_secret, owner, display_name, created_at'
  const select = database.prepare(`SELECT ${columns} FROM access_keys WHERE access_key_id = ?`)
  const list = database.prepare(`SELECT ${columns} FROM access_keys ORDER BY access_key_id`)
  const insert = database.prepare(
    `INSERT INTO access_keys (${columns}) VALUES (?, ?, ?, ?, ?) ON CONFLICT (access_key_id) DO NOTHING`
  )
  const remove = database.prepare('DELETE FROM access_keys WHERE access_key_id = ?')

  return {
    createAccessKey: (key) =>
      database.write(() => {
        const isNew = insert.run(...accessKeyValues(key)).changes === 1
        if (!isNew) throw new HoldfastError('BAD_INPUT', `there is an access key ${key.accessKeyId} already`)
      }),

    getAccessKey: (accessKeyId) =>
      database.read(() => {
        const row = select.get(accessKeyId)
        return row === undefined ? undefined : accessKeyOf(row)
      }),

    listAccessKeys: () => database.read(() => list.all().map(accessKeyOf)),
    revokeAccessKey: (accessKeyId) => database.write(() => remove.run(accessKeyId).changes === 1)
  }
}

export function sqliteKnownProviders(database: Database): ProviderIndex {
  const columns = 'peer_id, data_urls, addresses, domain, last_seen_at'
  const list = database.prepare(`SELECT ${columns} FROM known_providers ORDER BY peer_id`)
  const save = database.prepare(
    `INSERT INTO known_providers (${columns}) VALUES (?, ?, ?, ?, ?)
     ON CONFLICT (peer_id) DO UPDATE SET data_urls = excluded.data_urls, addresses = excluded.addresses,
       domain = excluded.domain, last_seen_at = excluded.last_seen_at`
  )
  const prune = database.prepare(
    `DELETE FROM known_providers WHERE peer_id IN
       (SELECT peer_id FROM known_providers ORDER BY last_seen_at DESC, peer_id DESC LIMIT -1 OFFSET ${knownProvidersMax})`
  )

  return {
    saveProviders: (providers) =>
      database.write(() => {
        for (const provider of providers) save.run(...knownProviderValues(provider))
        prune.run()
      }),

    listProviders: () => database.read(() => list.all().map(knownProviderOf))
  }
}
