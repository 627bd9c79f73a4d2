/** What audits ask of the index must not cost more the more there is in it: how SQLite means to find each answer. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Providers } from '../../src/metadata/sqlite/contents.ts'
import { sqliteCustody } from '../../src/metadata/sqlite/custody.ts'
import { Database } from '../../src/metadata/sqlite/database.ts'

const statements: string[] = []

class Listening extends Database {
  override prepare(sql: string): ReturnType<Database['prepare']> {
    statements.push(sql)
    return super.prepare(sql)
  }
}

let database: Database
beforeAll(() => {
  database = new Listening(':memory:')
  sqliteCustody(database, new Providers(database))
})
afterAll(() => database.close())

const plan = (sql: string): string[] =>
  Database.prototype.prepare
    .call(database, `EXPLAIN QUERY PLAN ${sql}`)
    .all()
    .map(({ detail }) => String(detail))

/** Of statements that concern a table which grows, how it is gone through. */
function accesses(table: string): string[][] {
  const names = new RegExp(`\\b(FROM|UPDATE|JOIN) ${table}\\b(?: ([a-z])\\b)?`)
  return statements.flatMap((sql) => {
    const found = names.exec(sql)
    if (found === null || !/^(SELECT|UPDATE|DELETE)/.test(sql)) return []
    return [plan(sql).filter((line) => new RegExp(`\\b(${table}|${found[2] ?? table})\\b|TEMP B-TREE`).test(line))]
  })
}

/** By more than the provider, or by the CID. */
const narrow = new RegExp(
  [
    /USING INDEX shards_by_custody \(provider_id=\? AND <expr>[=>]+\?\)$/,
    /USING INDEX shards_by_proof \(provider_id=\? AND <expr><\?\)$/,
    /USING INDEX shards_by_cid \(<expr>=\?\)$/
  ]
    .map(({ source }) => source)
    .join('|')
)

test('shards are searched for, by the provider and more, and never all sorted', () => {
  const lists = accesses('shards')
  expect(lists).toHaveLength(5)
  for (const lines of lists) {
    expect(lines.filter((line) => line.startsWith('SCAN'))).toEqual([])
    const [search] = lines.filter((line) => line.startsWith('SEARCH'))
    expect(search).toMatch(narrow)
    // Blocks that have four bytes of digest in common are put in order, a few at a time.
    for (const line of lines)
      if (line.includes('B-TREE')) expect(line).toBe('USE TEMP B-TREE FOR LAST TERM OF ORDER BY')
  }
})

test('transcripts are found by their ids, provider or age, and never sorted', () => {
  const lists = accesses('transcripts')
  expect(lists).toHaveLength(5)
  for (const lines of lists) {
    expect(lines.join('\n')).not.toMatch(/B-TREE/)
    // The first of all, by id: as many as are asked for.
    const scans = lines.filter((line) => line.startsWith('SCAN'))
    expect(scans.every((line) => line === 'SCAN transcripts')).toBe(true)
    expect(lines.some((line) => /^SEARCH .*(rowid|asked_at)/.test(line))).toBe(true)
  }
})
