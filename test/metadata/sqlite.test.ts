import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll } from 'vitest'
import { openSqliteIndex } from '../../src/metadata/sqlite.ts'
import { metadataIndexContract } from '../contracts/metadata-index.ts'

metadataIndexContract('SQLite in memory', () => openSqliteIndex(':memory:'))

let directory: string
let files = 0
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-index-'))
})
afterAll(() => rm(directory, { recursive: true }))
metadataIndexContract('SQLite in a file', () => openSqliteIndex(join(directory, `${files++}.db`)))
