/**
 * The index in a SQLite file of its own: write-ahead log, synced at every commit, so that what was acknowledged
 * survives `kill -9` and power loss. One file belongs to one gateway.
 */
import type { Log } from '../base/log.ts'
import type { MetadataIndex } from './index-store.ts'
import { sqliteAccounts, sqliteKnownProviders } from './sqlite/accounts.ts'
import { sqliteBuckets } from './sqlite/buckets.ts'
import { Contents, Providers, Segments } from './sqlite/contents.ts'
import { sqliteCustody } from './sqlite/custody.ts'
import { Database } from './sqlite/database.ts'
import { ObjectNames, sqliteObjects } from './sqlite/objects.ts'
import { sqliteRepair } from './sqlite/repair.ts'
import { sqliteShards } from './sqlite/shards.ts'
import { sqliteUploads } from './sqlite/uploads.ts'

export interface SqliteIndexOptions {
  log?: Log
  /**
   * Whether objects are read through this index, as a gateway does (the default): only then is deleted content dropped
   * here, since only the serving process knows its readers. False for a tool beside a running gateway.
   */
  isServing?: boolean
}

/**
 * Opens the index, makes it where there is none (mode 0600), and brings an older format up to date.
 *
 * @param path file; or `:memory:`, which is gone when closed and repeats exactly under a seeded run
 * @throws HoldfastError `BAD_CONFIG` where it cannot be opened or a newer version wrote it; `DAMAGED`
 */
export async function openSqliteIndex(
  path: string | ':memory:',
  options: SqliteIndexOptions = {}
): Promise<MetadataIndex> {
  const database = new Database(path)
  try {
    const providers = new Providers(database)
    const segments = new Segments(database, providers)
    const contents = new Contents(database, segments, { isServing: options.isServing ?? true, log: options.log })
    const names = new ObjectNames(database, contents)
    const shards = sqliteShards(database, providers, segments)
    await contents.sweep()
    return {
      ...sqliteBuckets(database),
      ...sqliteObjects(database, contents, names),
      ...sqliteUploads(database, segments, contents, names),
      ...shards,
      ...sqliteCustody(database, providers),
      ...sqliteRepair(database, providers, segments),
      ...sqliteAccounts(database),
      ...sqliteKnownProviders(database),
      ping: async () => void (await shards.totals()),
      close: async () => database.close()
    }
  } catch (error) {
    database.close()
    throw error
  }
}
