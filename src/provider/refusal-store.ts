/**
 * What this provider refuses, and why: by command or by a denylist; `refusals.sqlite`. Asked before every block is taken,
 * served or proved, so an answer is some look-ups by key. FORMATS.md, "A provider's directory".
 */
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { check, HoldfastError } from '../base/errors.ts'
import { CID } from '../content/cid.ts'
import { type DenyRule, hashedKeysOf, keyOfCid } from './denylist.ts'

/** Blocks that targets name together: 200 MB. */
const blocksMax = 2_000_000
const commandsMax = 100_000

const schema = `
  CREATE TABLE IF NOT EXISTS lists (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, name TEXT, at_once INTEGER NOT NULL, generation INTEGER NOT NULL,
    read_at INTEGER, failure TEXT, not_applicable INTEGER NOT NULL DEFAULT 0, problems TEXT NOT NULL DEFAULT '[]',
    problem_count INTEGER NOT NULL DEFAULT 0
  ) STRICT;
  CREATE TABLE IF NOT EXISTS targets (
    id INTEGER PRIMARY KEY, list INTEGER NOT NULL, key BLOB NOT NULL, cid BLOB, is_allowed INTEGER NOT NULL,
    reason TEXT NOT NULL, at INTEGER NOT NULL, at_once INTEGER NOT NULL, generation INTEGER NOT NULL,
    expanded INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0, next_try INTEGER NOT NULL DEFAULT 0,
    UNIQUE (key, list)
  ) STRICT;
  CREATE INDEX IF NOT EXISTS targets_by_list ON targets (list, generation);
  CREATE INDEX IF NOT EXISTS targets_hashed ON targets (id) WHERE cid IS NULL;
  CREATE INDEX IF NOT EXISTS targets_unexpanded ON targets (next_try) WHERE expanded = 0;
  CREATE TABLE IF NOT EXISTS blocks (
    key BLOB NOT NULL, target INTEGER NOT NULL, cid BLOB NOT NULL, PRIMARY KEY (key, target)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS blocks_by_target ON blocks (target);
  CREATE TABLE IF NOT EXISTS signed (
    cid BLOB PRIMARY KEY, target INTEGER NOT NULL, bytes BLOB NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS signed_by_target ON signed (target);
  CREATE TABLE IF NOT EXISTS kept (cid BLOB PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS kept_by_until ON kept (until);
  CREATE TABLE IF NOT EXISTS unsettled (target INTEGER PRIMARY KEY) STRICT;
  PRAGMA user_version = 1;
`

/** What refuses a block. */
export interface RefusalGround {
  reason: string
  /** Milliseconds since the Unix epoch. */
  at: number
  /** The content as part of which the block is refused; null: for itself. */
  root: CID | null
  /** Path of the denylist; null: by command. */
  list: string | null
  /** Whether it is to be deleted without being handed over. */
  atOnce: boolean
  /** Of the target in the store: a signature is about one. */
  target: number
}

export interface CommandView {
  cid: CID
  reason: string
  at: number
  atOnce: boolean
  /** Blocks known to be part of it, itself not counted. */
  blocks: number
  /** Whether its parts are known, or it has none. */
  isExpanded: boolean
}

export interface ListView {
  id: number
  path: string
  name: string | null
  atOnce: boolean
  rules: number
  /** Milliseconds since the Unix epoch; null: never. */
  readAt: number | null
  /** Why it could not be read the last time; what it said before is in force then. */
  failure: string | null
  notApplicable: number
  problems: Array<{ line: number; why: string }>
  problemCount: number
}

export interface Unexpanded {
  target: number
  cid: CID
  list: number
  tries: number
}

interface Presence {
  targets: number
  hashed: number
}

interface GroundRow {
  id: number
  list: number
  cid: Uint8Array | null
  is_allowed: number
  reason: string
  at: number
  at_once: number
}

export class RefusalStore {
  readonly #db: DatabaseSync
  readonly #statements: ReturnType<typeof prepare>
  /** Whether anything is refused at all, and whether any of it is known by a hash only: usually neither. */
  #has: Presence = { targets: 0, hashed: 0 }
  /** Of targets that have something to settle, what this process saw last of their growing. */
  readonly #marks = new Map<number, number>()
  #lastMark = 0

  /**
   * @param path of the database; `:memory:` for what need not outlive the process
   * @throws HoldfastError `BAD_CONFIG` when a newer version wrote it
   */
  constructor(path: string) {
    this.#db = new DatabaseSync(path)
    try {
      this.#db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL')
      const { user_version: version } = this.#db.prepare('PRAGMA user_version').get() as { user_version: number }
      if (version > 1) throw new HoldfastError('BAD_CONFIG', `${path} was written by a newer version`)
      this.#db.exec(schema)
      this.#statements = prepare(this.#db)
      this.#look()
    } catch (error) {
      this.#db.close()
      throw error
    }
  }

  /**
   * Why the block is refused; undefined: it is not. The oldest ground counts; where any wants it deleted at once, it is:
   * what the operator asks for later is not to come to nothing for what was there before.
   */
  find(cid: CID): RefusalGround | undefined {
    if (this.#has.targets === 0) return undefined
    const keys = [keyOfCid(cid), ...(this.#has.hashed > 0 ? hashedKeysOf(cid) : [])]
    const own = keys.flatMap((key) => this.#statements.byKey.all(key) as unknown as GroundRow[])
    const asPart = this.#statements.byBlock.all(keys[0]!) as unknown as GroundRow[]
    const allowing = new Set(own.filter((row) => row.is_allowed === 1).map(({ list }) => list))
    const grounds = [
      ...own.map((row) => ({ row, root: null })),
      ...asPart.map((row) => ({ row, root: row.cid === null ? null : CID.decode(row.cid) }))
    ].filter(({ row }) => row.is_allowed === 0 && !allowing.has(row.list))
    if (grounds.length === 0) return undefined
    const { row, root } = grounds.reduce((first, next) => (next.row.at < first.row.at ? next : first))
    const list = row.list === 0 ? null : ((this.#statements.pathOf.get(row.list) as { path: string }).path ?? null)
    const atOnce = grounds.some((ground) => ground.row.at_once === 1)
    return { reason: row.reason, at: row.at, root, list, atOnce, target: row.id }
  }

  /**
   * Refuses a block, and what is known to be part of it, until `undo`. What is held of it has to be settled then.
   *
   * @returns the target
   * @throws HoldfastError `BAD_INPUT` when that is more than can be kept in mind
   */
  refuse(
    cid: CID,
    { reason, at, atOnce }: { reason: string; at: number; atOnce: boolean },
    { cids, isWhole }: { cids: readonly CID[]; isWhole: boolean }
  ): number {
    return this.#write(() => {
      const known = this.#statements.command.get(keyOfCid(cid)) as { id: number } | undefined
      const { n } = this.#statements.commandCount.get() as { n: number }
      check(
        known !== undefined || n < commandsMax,
        `at most ${commandsMax} contents are refused by command: use a list`
      )
      const row = this.#statements.addTarget.get(
        ...[0, keyOfCid(cid), cid.bytes, 0, reason, at, Number(atOnce), 0, Number(isWhole)]
      ) as { id: number }
      this.#statements.unsign.run(row.id) // it may say something else now
      this.#addBlocks(row.id, cids)
      this.#unsettle(row.id)
      return row.id
    })
  }

  /** @returns whether it was refused by command */
  undo(cid: CID): boolean {
    return this.#write(() => {
      const row = this.#statements.command.get(keyOfCid(cid)) as { id: number } | undefined
      if (row !== undefined) this.#dropTarget(row.id)
      return row !== undefined
    })
  }

  /** What is part of a target, as far as it is known now. */
  expand(target: number, { cids, isWhole }: { cids: readonly CID[]; isWhole: boolean }): void {
    this.#write(() => {
      if (this.#statements.setExpanded.run(Number(isWhole), target).changes === 0) return // undone meanwhile
      this.#addBlocks(target, cids)
      this.#unsettle(target)
    })
  }

  /** Targets whose parts are not known, and are to be looked for now. */
  unexpanded(now: number, limit: number): Unexpanded[] {
    const rows = this.#statements.unexpanded.all(now, limit) as Array<{
      id: number
      cid: Uint8Array
      list: number
      tries: number
    }>
    return rows.map(({ id, cid, list, tries }) => ({ target: id, cid: CID.decode(cid), list, tries }))
  }

  /** Their parts were not found. `nextTry` null: they are not looked for again. */
  notFound(targets: ReadonlyArray<{ target: number; nextTry: number | null }>): void {
    this.#write(() => {
      for (const { target, nextTry } of targets) this.#statements.tried.run(nextTry ?? Number.MAX_SAFE_INTEGER, target)
    })
  }

  /**
   * Targets of which what is held has not been settled since they were added or grew; `everything` where it is rules, of
   * which a hash may be all that is known.
   */
  unsettled(limit: number): number[] {
    return (this.#statements.unsettled.all(limit) as Array<{ target: number }>).map(({ target }) => target)
  }

  /** To be asked before what is held is looked at, and given to `settled`. */
  markOf(target: number): number {
    return this.#marks.get(target) ?? 0
  }

  /** Unless it has grown since it had that mark: then what was looked at before has to be looked at again. */
  settled(target: number, mark: number): void {
    if (this.markOf(target) !== mark) return
    this.#write(() => void this.#statements.settle.run(target))
    this.#marks.delete(target)
  }

  #unsettle(target: number): void {
    this.#statements.unsettle.run(target)
    this.#marks.set(target, ++this.#lastMark)
  }

  /** A target and its parts, by CID, behind `after`; one that is known by a hash has none. */
  cidsOf(target: number, after: CID | undefined, limit: number): CID[] {
    const rows = this.#statements.blocksOf.all(target, after?.multihash.bytes ?? new Uint8Array(0), limit)
    const cids = rows.map((row) => CID.decode((row as { cid: Uint8Array }).cid))
    if (after !== undefined) return cids
    const own = this.#statements.cidOf.get(target) as { cid: Uint8Array | null } | undefined
    return own?.cid == null ? cids : [CID.decode(own.cid), ...cids]
  }

  /** What was signed of this block on this ground. */
  signedOf(cid: CID, target: number): Uint8Array | undefined {
    return (this.#statements.signedOf.get(cid.bytes, target) as { bytes: Uint8Array } | undefined)?.bytes
  }

  keepSigned(cid: CID, target: number, bytes: Uint8Array): void {
    this.#write(() => void this.#statements.keepSigned.run(cid.bytes, target, bytes))
  }

  /** How many signatures are kept. */
  get signed(): number {
    return (this.#statements.signedCount.get() as { n: number }).n
  }

  /** Remembers blocks that are kept though they are refused, until a time at most. */
  keep(cids: readonly CID[], until: number): void {
    this.#write(() => {
      for (const cid of cids) this.#statements.keep.run(cid.bytes, until)
    })
  }

  /** Those whose time is over. */
  keptUntil(now: number, limit: number): CID[] {
    return (this.#statements.keptUntil.all(now, limit) as Array<{ cid: Uint8Array }>).map(({ cid }) => CID.decode(cid))
  }

  keepNoMore(cids: readonly CID[]): void {
    this.#write(() => {
      for (const cid of cids) this.#statements.keepNoMore.run(cid.bytes)
    })
  }

  /** Refused blocks that are kept, in the order of their CIDs' bytes, behind `after`. */
  listKept(after: CID | undefined, limit: number): CID[] {
    const rows = this.#statements.listKept.all(after?.bytes ?? new Uint8Array(0), limit) as Array<{ cid: Uint8Array }>
    return rows.map(({ cid }) => CID.decode(cid))
  }

  /** How many they are. */
  get kept(): number {
    return (this.#statements.keptCount.get() as { n: number }).n
  }

  isKept(cid: CID): boolean {
    return this.#statements.isKept.get(cid.bytes) !== undefined
  }

  commands(limit: number): CommandView[] {
    const rows = this.#statements.commands.all(limit) as unknown as Array<
      GroundRow & { blocks: number; expanded: number }
    >
    return rows.map((row) => ({
      cid: CID.decode(row.cid!),
      reason: row.reason,
      at: row.at,
      atOnce: row.at_once === 1,
      blocks: row.blocks,
      isExpanded: row.expanded === 1
    }))
  }

  lists(): ListView[] {
    const rows = this.#statements.lists.all() as unknown as ListRow[]
    return rows.map((row) => ({
      id: row.id,
      path: row.path,
      name: row.name,
      atOnce: row.at_once === 1,
      rules: row.rules,
      readAt: row.read_at,
      failure: row.failure,
      notApplicable: row.not_applicable,
      problems: JSON.parse(row.problems),
      problemCount: row.problem_count
    }))
  }

  /** Which files are read: what is cheap to know of the lists. */
  listFiles(): Array<{ id: number; path: string; failure: string | null }> {
    return this.#statements.listFiles.all() as Array<{ id: number; path: string; failure: string | null }>
  }

  /** Remembers a list; what it says is not in force before it was read. */
  addList(path: string, atOnce: boolean): number {
    return this.#write(() => (this.#statements.addList.get(path, Number(atOnce)) as { id: number }).id)
  }

  /** Forgets a list, and what it says. @returns whether there was one */
  dropList(path: string): boolean {
    return this.#write(() => {
      const row = this.#statements.listAt.get(path) as { id: number } | undefined
      if (row === undefined) return false
      this.#statements.unsignList.run(row.id)
      this.#statements.dropListBlocks.run(row.id)
      this.#statements.dropListTargets.run(row.id)
      this.#statements.dropList.run(row.id)
      return true
    })
  }

  /** Begins a new reading of a list. Until it ends, what the last one said is in force, and more and more of this one. */
  beginReading(list: number): number {
    return this.#write(() => (this.#statements.nextGeneration.get(list) as { generation: number }).generation)
  }

  /** Some rules of a reading. */
  addRules(list: number, generation: number, rules: readonly DenyRule[], at: number): void {
    this.#write(() => {
      const { at_once: atOnce } = (this.#statements.list.get(list) as { at_once: number } | undefined) ?? {}
      if (atOnce === undefined) return // dropped meanwhile
      for (const { key, cid, isAllowed, reason } of rules) {
        const isNode = cid !== undefined && cid.code !== rawCodec && !isAllowed
        this.#statements.addRule.run(
          ...[list, key, cid?.bytes ?? null, Number(isAllowed), reason, at, atOnce, generation, Number(!isNode)]
        )
      }
      this.#unsettle(everything)
    })
  }

  /** What the list does not say any more ends. */
  endReading(
    list: number,
    generation: number,
    { name, at, notApplicable, problems, problemCount }: ReadingSummary
  ): void {
    this.#write(() => {
      this.#statements.unsignOld.run(list, generation)
      this.#statements.dropOldBlocks.run(list, generation)
      this.#statements.dropOldTargets.run(list, generation)
      this.#unsettle(everything) // what it allowed may be refused now
      this.#statements.endReading.run(name ?? null, at, notApplicable, JSON.stringify(problems), problemCount, list)
    })
  }

  /** Why a list could not be read. */
  failReading(list: number, why: string): void {
    this.#write(() => void this.#statements.failReading.run(why, list))
  }

  close(): void {
    this.#db.close()
  }

  #addBlocks(target: number, parts: readonly CID[]): void {
    const { n } = this.#statements.blockCount.get() as { n: number }
    check(n + parts.length <= blocksMax, `at most ${blocksMax} blocks are refused as parts of contents`)
    for (const cid of parts) this.#statements.addBlock.run(keyOfCid(cid), target, cid.bytes)
  }

  #dropTarget(target: number): void {
    this.#statements.unsign.run(target) // the next target may have its number
    this.#statements.dropBlocks.run(target)
    this.#statements.dropTarget.run(target)
    this.#statements.settle.run(target)
    this.#marks.delete(target)
  }

  #look(): void {
    this.#has = { ...(this.#statements.look.get() as unknown as Presence) }
  }

  #write<T>(work: () => T): T {
    this.#db.exec('BEGIN IMMEDIATE')
    try {
      const result = work()
      this.#db.exec('COMMIT')
      return result
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK')
      throw error
    } finally {
      this.#look()
    }
  }
}

export interface ReadingSummary {
  name: string | undefined
  at: number
  notApplicable: number
  problems: Array<{ line: number; why: string }>
  problemCount: number
}

interface ListRow {
  id: number
  path: string
  name: string | null
  at_once: number
  rules: number
  read_at: number | null
  failure: string | null
  not_applicable: number
  problems: string
  problem_count: number
}

const rawCodec = 0x55
/** In place of a target. */
export const everything = 0

function prepare(db: DatabaseSync) {
  const statement = (sql: string): StatementSync => db.prepare(sql)
  const ground = 't.id, t.list, t.cid, t.is_allowed, t.reason, t.at, t.at_once'
  return {
    look: statement(`SELECT EXISTS (SELECT 1 FROM targets) AS targets,
      EXISTS (SELECT 1 FROM targets INDEXED BY targets_hashed WHERE cid IS NULL) AS hashed`),
    byKey: statement(`SELECT ${ground} FROM targets t WHERE t.key = ?`),
    byBlock: statement(`SELECT ${ground} FROM blocks b JOIN targets t ON t.id = b.target WHERE b.key = ?`),
    pathOf: statement('SELECT path FROM lists WHERE id = ?'),
    command: statement('SELECT id FROM targets WHERE key = ? AND list = 0'),
    commandCount: statement('SELECT count(*) AS n FROM targets WHERE list = 0'),
    commands: statement(`
      SELECT ${ground}, t.expanded, (SELECT count(*) FROM blocks b WHERE b.target = t.id) AS blocks
      FROM targets t WHERE t.list = 0 ORDER BY t.at DESC, t.id DESC LIMIT ?`),
    addTarget: statement(`
      INSERT INTO targets (list, key, cid, is_allowed, reason, at, at_once, generation, expanded)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
      ON CONFLICT (key, list) DO UPDATE SET reason = excluded.reason, at = excluded.at, at_once = excluded.at_once,
        expanded = max(expanded, excluded.expanded), tries = 0, next_try = 0
      RETURNING id`),
    addRule: statement(`
      INSERT INTO targets (list, key, cid, is_allowed, reason, at, at_once, generation, expanded)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
      ON CONFLICT (key, list) DO UPDATE SET is_allowed = excluded.is_allowed, reason = excluded.reason,
        at_once = excluded.at_once, generation = excluded.generation`),
    dropTarget: statement('DELETE FROM targets WHERE id = ?'),
    dropBlocks: statement('DELETE FROM blocks WHERE target = ?'),
    cidOf: statement('SELECT cid FROM targets WHERE id = ?'),
    addBlock: statement('INSERT OR IGNORE INTO blocks VALUES (?, ?, ?)'),
    blockCount: statement('SELECT count(*) AS n FROM blocks'),
    blocksOf: statement('SELECT cid FROM blocks WHERE target = ? AND key > ? ORDER BY key LIMIT ?'),
    unexpanded: statement(`
      SELECT id, cid, list, tries FROM targets INDEXED BY targets_unexpanded
      WHERE expanded = 0 AND next_try <= ? ORDER BY next_try LIMIT ?`),
    setExpanded: statement('UPDATE targets SET expanded = ? WHERE id = ?'),
    tried: statement('UPDATE targets SET tries = tries + 1, next_try = ? WHERE id = ?'),
    unsettle: statement('INSERT OR IGNORE INTO unsettled VALUES (?)'),
    unsettled: statement('SELECT target FROM unsettled ORDER BY target DESC LIMIT ?'),
    settle: statement('DELETE FROM unsettled WHERE target = ?'),
    signedOf: statement('SELECT bytes FROM signed WHERE cid = ? AND target = ?'),
    keepSigned: statement('INSERT OR REPLACE INTO signed VALUES (?, ?, ?)'),
    unsign: statement('DELETE FROM signed WHERE target = ?'),
    unsignList: statement('DELETE FROM signed WHERE target IN (SELECT id FROM targets WHERE list = ?)'),
    unsignOld: statement(
      'DELETE FROM signed WHERE target IN (SELECT id FROM targets WHERE list = ? AND generation < ?)'
    ),
    signedCount: statement('SELECT count(*) AS n FROM signed'),
    keep: statement('INSERT OR IGNORE INTO kept VALUES (?, ?)'),
    keptUntil: statement('SELECT cid FROM kept WHERE until <= ? ORDER BY until LIMIT ?'),
    keepNoMore: statement('DELETE FROM kept WHERE cid = ?'),
    listKept: statement('SELECT cid FROM kept WHERE cid > ? ORDER BY cid LIMIT ?'),
    keptCount: statement('SELECT count(*) AS n FROM kept'),
    isKept: statement('SELECT 1 FROM kept WHERE cid = ?'),
    list: statement('SELECT at_once FROM lists WHERE id = ?'),
    listAt: statement('SELECT id FROM lists WHERE path = ?'),
    listFiles: statement('SELECT id, path, failure FROM lists ORDER BY path'),
    lists: statement(`
      SELECT l.*, (SELECT count(*) FROM targets t WHERE t.list = l.id) AS rules FROM lists l ORDER BY l.path`),
    addList: statement(`
      INSERT INTO lists (path, at_once, generation) VALUES (?, ?, 0)
      ON CONFLICT (path) DO UPDATE SET at_once = excluded.at_once RETURNING id`),
    dropList: statement('DELETE FROM lists WHERE id = ?'),
    dropListTargets: statement('DELETE FROM targets WHERE list = ?'),
    dropListBlocks: statement('DELETE FROM blocks WHERE target IN (SELECT id FROM targets WHERE list = ?)'),
    nextGeneration: statement('UPDATE lists SET generation = generation + 1 WHERE id = ? RETURNING generation'),
    dropOldTargets: statement('DELETE FROM targets WHERE list = ? AND generation < ?'),
    dropOldBlocks: statement(
      'DELETE FROM blocks WHERE target IN (SELECT id FROM targets WHERE list = ? AND generation < ?)'
    ),
    endReading: statement(`
      UPDATE lists SET name = ?, read_at = ?, failure = NULL, not_applicable = ?, problems = ?, problem_count = ?
      WHERE id = ?`),
    failReading: statement('UPDATE lists SET failure = ? WHERE id = ?')
  }
}
