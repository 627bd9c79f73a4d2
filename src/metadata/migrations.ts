/**
 * The tables of the SQLite index, as the steps that lead to them. `PRAGMA user_version` counts the steps a file has
 * taken. A step that was ever released is never edited: a change is a new step.
 */
import type { DatabaseSync } from 'node:sqlite'
import { HoldfastError } from '../base/errors.ts'

/** `PRAGMA application_id` of every index: "HfIx". */
export const applicationId = 0x48664978

/**
 * Step 1. Shard states are numbers: 0 healthy, 1 offline, 2 contained, 3 missing, 4 wrong, 5 withdrawn, 6 unknown.
 * "Held" is 0, 1, 2, 6 with a provider; "lost" is 3, 4, 6 (and 5, from step 2).
 *
 * The release queue is kept by triggers, so that no path through the code can break its one rule: a row is there
 * exactly when nothing needs that block at that provider any more, and never while a shard row does.
 *
 * Keys are BLOBs: compared bytewise, which is S3's order, and safe with a NUL inside.
 */
const first = `
CREATE TABLE totals (
  id INTEGER PRIMARY KEY CHECK (id = 0),
  objects INTEGER NOT NULL,
  object_bytes INTEGER NOT NULL,
  segments INTEGER NOT NULL,
  shards INTEGER NOT NULL
) STRICT;
INSERT INTO totals VALUES (0, 0, 0, 0, 0);

CREATE TABLE buckets (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  owner TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  is_public INTEGER NOT NULL,
  wrapped_key BLOB NOT NULL
) STRICT;
CREATE INDEX buckets_by_owner ON buckets (owner, name);

-- What objects share when they are copies of each other. Doomed: no object names it, its rows are still to be dropped.
-- AUTOINCREMENT here and below: readers and repairs hold ids across transactions, so none may ever mean another row.
CREATE TABLE contents (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  is_doomed INTEGER NOT NULL
) STRICT;
CREATE INDEX contents_doomed ON contents (id) WHERE is_doomed = 1;

CREATE TABLE objects (
  bucket_id INTEGER NOT NULL REFERENCES buckets (id),
  key BLOB NOT NULL,
  content_id INTEGER NOT NULL REFERENCES contents (id),
  size INTEGER NOT NULL,
  etag TEXT NOT NULL,
  modified_at INTEGER NOT NULL,
  root BLOB NOT NULL,
  wrapped_key BLOB NOT NULL,
  headers TEXT NOT NULL,
  user_metadata TEXT NOT NULL,
  checksums TEXT NOT NULL,
  checksum_type TEXT,
  storage_class TEXT NOT NULL,
  part_sizes TEXT,
  PRIMARY KEY (bucket_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX objects_by_content ON objects (content_id);

CREATE TRIGGER objects_added AFTER INSERT ON objects BEGIN
  UPDATE totals SET objects = objects + 1, object_bytes = object_bytes + NEW.size;
END;
CREATE TRIGGER objects_resized AFTER UPDATE OF size ON objects WHEN OLD.size <> NEW.size BEGIN
  UPDATE totals SET object_bytes = object_bytes + NEW.size - OLD.size;
END;
CREATE TRIGGER objects_removed AFTER DELETE ON objects BEGIN
  UPDATE totals SET objects = objects - 1, object_bytes = object_bytes - OLD.size;
END;

-- lost: how many of its shards are lost or not placed. shard_bytes: size of each.
CREATE TABLE segments (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  length INTEGER NOT NULL,
  k INTEGER NOT NULL,
  m INTEGER NOT NULL,
  nonce BLOB NOT NULL,
  shard_bytes INTEGER NOT NULL,
  lost INTEGER NOT NULL CHECK (lost >= 0)
) STRICT;
CREATE INDEX segments_incomplete ON segments (id) WHERE lost > 0;

CREATE TRIGGER segments_added AFTER INSERT ON segments BEGIN
  UPDATE totals SET segments = segments + 1, shards = shards + NEW.k + NEW.m;
END;
CREATE TRIGGER segments_removed AFTER DELETE ON segments BEGIN
  UPDATE totals SET segments = segments - 1, shards = shards - OLD.k - OLD.m;
END;

-- position: the byte offset of a data segment, the ordinal of a block.
CREATE TABLE content_segments (
  content_id INTEGER NOT NULL REFERENCES contents (id),
  is_block INTEGER NOT NULL,
  position INTEGER NOT NULL,
  segment_id INTEGER NOT NULL REFERENCES segments (id),
  PRIMARY KEY (content_id, is_block, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX content_segments_by_segment ON content_segments (segment_id);

CREATE TABLE uploads (
  id INTEGER PRIMARY KEY,
  upload_id TEXT NOT NULL UNIQUE,
  bucket_id INTEGER NOT NULL REFERENCES buckets (id),
  key BLOB NOT NULL,
  owner TEXT NOT NULL,
  initiated_at INTEGER NOT NULL,
  wrapped_key BLOB NOT NULL,
  headers TEXT NOT NULL,
  user_metadata TEXT NOT NULL,
  storage_class TEXT NOT NULL,
  checksum_algorithm TEXT,
  checksum_type TEXT
) STRICT;
CREATE UNIQUE INDEX uploads_by_key ON uploads (bucket_id, key, upload_id);

CREATE TABLE parts (
  id INTEGER PRIMARY KEY,
  upload INTEGER NOT NULL REFERENCES uploads (id),
  number INTEGER NOT NULL,
  size INTEGER NOT NULL,
  etag TEXT NOT NULL,
  modified_at INTEGER NOT NULL,
  checksums TEXT NOT NULL,
  UNIQUE (upload, number)
) STRICT;

CREATE TABLE part_segments (
  part_id INTEGER NOT NULL REFERENCES parts (id),
  ordinal INTEGER NOT NULL,
  segment_id INTEGER NOT NULL REFERENCES segments (id),
  PRIMARY KEY (part_id, ordinal)
) STRICT, WITHOUT ROWID;
CREATE INDEX part_segments_by_segment ON part_segments (segment_id);

-- Peer ids, once each. state (0 healthy, 1 offline) is that of all shards here in state 0 or 1 whose epoch is older:
-- so a provider with a million shards goes and comes in one row. is_mixed: a shard of this epoch says otherwise.
CREATE TABLE providers (
  id INTEGER PRIMARY KEY,
  peer_id TEXT NOT NULL UNIQUE,
  state INTEGER NOT NULL DEFAULT 0,
  epoch INTEGER NOT NULL DEFAULT 0,
  is_mixed INTEGER NOT NULL DEFAULT 0,
  held_shards INTEGER NOT NULL DEFAULT 0,
  held_bytes INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE shards (
  segment_id INTEGER NOT NULL REFERENCES segments (id),
  idx INTEGER NOT NULL,
  cid BLOB NOT NULL,
  provider_id INTEGER REFERENCES providers (id),
  state INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  lease_until INTEGER NOT NULL,
  last_proof INTEGER,
  PRIMARY KEY (segment_id, idx)
) STRICT, WITHOUT ROWID;
-- CIDs are random, so every new shard dirties a page of this index: a few bytes of the digest find it in a third of the
-- space. Queries must name both: the expression to use the index, the CID to be right.
CREATE INDEX shards_by_cid ON shards (substr(cid, -6));
CREATE INDEX shards_by_lease ON shards (provider_id, lease_until)
  WHERE provider_id IS NOT NULL AND state IN (0, 1, 2, 6);

CREATE TABLE releases (
  provider_id INTEGER NOT NULL REFERENCES providers (id),
  cid BLOB NOT NULL,
  PRIMARY KEY (provider_id, cid)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER shards_added AFTER INSERT ON shards WHEN NEW.provider_id IS NOT NULL BEGIN
  DELETE FROM releases WHERE provider_id = NEW.provider_id AND cid = NEW.cid;
  UPDATE providers SET
    held_shards = held_shards + (NEW.state IN (0, 1, 2, 6)),
    held_bytes = held_bytes
      + (NEW.state IN (0, 1, 2, 6)) * (SELECT shard_bytes FROM segments WHERE id = NEW.segment_id),
    is_mixed = is_mixed OR (NEW.state IN (0, 1) AND NEW.state <> state)
  WHERE id = NEW.provider_id;
END;

CREATE TRIGGER shards_removed AFTER DELETE ON shards WHEN OLD.provider_id IS NOT NULL BEGIN
  INSERT OR IGNORE INTO releases SELECT OLD.provider_id, OLD.cid
    WHERE NOT EXISTS (SELECT 1 FROM shards WHERE substr(cid, -6) = substr(OLD.cid, -6) AND cid = OLD.cid
      AND provider_id = OLD.provider_id);
  UPDATE providers SET
    held_shards = held_shards - (OLD.state IN (0, 1, 2, 6)),
    held_bytes = held_bytes
      - (OLD.state IN (0, 1, 2, 6)) * (SELECT shard_bytes FROM segments WHERE id = OLD.segment_id)
  WHERE id = OLD.provider_id;
END;

CREATE TRIGGER shards_moved AFTER UPDATE OF provider_id ON shards WHEN OLD.provider_id IS NOT NEW.provider_id BEGIN
  DELETE FROM releases WHERE provider_id = NEW.provider_id AND cid = NEW.cid;
  INSERT OR IGNORE INTO releases SELECT OLD.provider_id, OLD.cid
    WHERE OLD.provider_id IS NOT NULL
      AND NOT EXISTS (SELECT 1 FROM shards WHERE substr(cid, -6) = substr(OLD.cid, -6) AND cid = OLD.cid
      AND provider_id = OLD.provider_id);
END;

CREATE TRIGGER shards_changed AFTER UPDATE OF provider_id, state ON shards
WHEN OLD.provider_id IS NOT NEW.provider_id OR OLD.state <> NEW.state BEGIN
  UPDATE providers SET
    held_shards = held_shards - (OLD.state IN (0, 1, 2, 6)),
    held_bytes = held_bytes
      - (OLD.state IN (0, 1, 2, 6)) * (SELECT shard_bytes FROM segments WHERE id = OLD.segment_id)
  WHERE id = OLD.provider_id;
  UPDATE providers SET
    held_shards = held_shards + (NEW.state IN (0, 1, 2, 6)),
    held_bytes = held_bytes
      + (NEW.state IN (0, 1, 2, 6)) * (SELECT shard_bytes FROM segments WHERE id = NEW.segment_id)
  WHERE id = NEW.provider_id;
END;

CREATE TRIGGER shards_mixed AFTER UPDATE OF provider_id, state, epoch ON shards WHEN NEW.state IN (0, 1) BEGIN
  UPDATE providers SET is_mixed = 1 WHERE id = NEW.provider_id AND state <> NEW.state AND is_mixed = 0;
END;

CREATE TRIGGER shards_lost AFTER UPDATE OF state ON shards
WHEN (OLD.state IN (3, 4, 6)) <> (NEW.state IN (3, 4, 6)) BEGIN
  UPDATE segments SET lost = lost + (NEW.state IN (3, 4, 6)) - (OLD.state IN (3, 4, 6)) WHERE id = NEW.segment_id;
END;

CREATE TABLE access_keys (
  access_key_id TEXT PRIMARY KEY,
  sealed_secret BLOB NOT NULL,
  owner TEXT NOT NULL,
  display_name TEXT NOT NULL,
  created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE known_providers (
  peer_id TEXT PRIMARY KEY,
  data_urls TEXT NOT NULL,
  addresses TEXT NOT NULL,
  domain TEXT NOT NULL,
  last_seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX known_providers_by_age ON known_providers (last_seen_at);
`

/**
 * Step 2. Part checksums are kept. A withdrawn shard counts as lost: it has to be placed anew. What is known of a
 * provider is no longer said of its shards: it is the directory's, and asked for when needed.
 */
const second = `
ALTER TABLE objects ADD COLUMN part_checksums TEXT;

DROP TRIGGER shards_mixed;
DROP TRIGGER shards_added;
DROP TRIGGER shards_lost;
ALTER TABLE shards DROP COLUMN epoch;
ALTER TABLE providers DROP COLUMN state;
ALTER TABLE providers DROP COLUMN epoch;
ALTER TABLE providers DROP COLUMN is_mixed;

CREATE TRIGGER shards_added AFTER INSERT ON shards WHEN NEW.provider_id IS NOT NULL BEGIN
  DELETE FROM releases WHERE provider_id = NEW.provider_id AND cid = NEW.cid;
  UPDATE providers SET
    held_shards = held_shards + (NEW.state IN (0, 1, 2, 6)),
    held_bytes = held_bytes
      + (NEW.state IN (0, 1, 2, 6)) * (SELECT shard_bytes FROM segments WHERE id = NEW.segment_id)
  WHERE id = NEW.provider_id;
END;

CREATE TRIGGER shards_lost AFTER UPDATE OF state ON shards
WHEN (OLD.state IN (3, 4, 5, 6)) <> (NEW.state IN (3, 4, 5, 6)) BEGIN
  UPDATE segments SET lost = lost + (NEW.state IN (3, 4, 5, 6)) - (OLD.state IN (3, 4, 5, 6))
  WHERE id = NEW.segment_id;
END;
UPDATE segments SET lost = lost + withdrawn FROM
  (SELECT segment_id, COUNT(*) AS withdrawn FROM shards WHERE state = 5 GROUP BY segment_id) AS w
  WHERE id = w.segment_id;
`

/**
 * Step 3. What audits need. x'01551e20' begins every raw CID under BLAKE3 (version, codec, hash, its 32 bytes), and no
 * other: only those can be proved.
 */
const third = `
-- Blocks of a provider by CID: of the digest four bytes, which a million blocks share in a hundred pairs. A whole CID
-- would take twice the space, and the write of a page a shard is what this index costs as it is.
CREATE INDEX shards_by_custody ON shards (provider_id, substr(cid, 5, 4))
  WHERE provider_id IS NOT NULL AND state IN (0, 1, 2, 6) AND substr(cid, 1, 4) = x'01551e20';
CREATE INDEX shards_by_proof ON shards (provider_id, coalesce(last_proof, -1))
  WHERE provider_id IS NOT NULL AND state IN (0, 1, 2, 6) AND substr(cid, 1, 4) = x'01551e20';

CREATE TABLE auditor (
  id INTEGER PRIMARY KEY CHECK (id = 0),
  state BLOB NOT NULL
) STRICT;

CREATE TABLE audited_providers (
  provider_id INTEGER PRIMARY KEY REFERENCES providers (id),
  state BLOB NOT NULL
) STRICT;

-- AUTOINCREMENT: exports and pages go by id, so none may ever mean another row.
CREATE TABLE transcripts (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  provider_id INTEGER NOT NULL REFERENCES providers (id),
  asked_at INTEGER NOT NULL,
  bytes BLOB NOT NULL,
  signature BLOB NOT NULL,
  outcomes TEXT NOT NULL
) STRICT;
CREATE INDEX transcripts_by_provider ON transcripts (provider_id);
CREATE INDEX transcripts_by_age ON transcripts (asked_at);

ALTER TABLE totals ADD COLUMN transcripts INTEGER NOT NULL DEFAULT 0;
CREATE TRIGGER transcripts_added AFTER INSERT ON transcripts BEGIN
  UPDATE totals SET transcripts = transcripts + 1;
END;
CREATE TRIGGER transcripts_removed AFTER DELETE ON transcripts BEGIN
  UPDATE totals SET transcripts = transcripts - 1;
END;
`

/**
 * Step 4. What repair needs. A claim goes with its segment; a refusal stays when the content is gone, so that it is not
 * offered again when it comes back.
 */
const fourth = `
CREATE TABLE repair_claims (
  segment_id INTEGER PRIMARY KEY REFERENCES segments (id) ON DELETE CASCADE,
  claimant TEXT NOT NULL,
  until INTEGER NOT NULL
) STRICT;

CREATE TABLE refusals (
  cid BLOB NOT NULL,
  provider_id INTEGER NOT NULL REFERENCES providers (id),
  at INTEGER NOT NULL,
  signed BLOB NOT NULL,
  PRIMARY KEY (cid, provider_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE presence (
  provider_id INTEGER PRIMARY KEY REFERENCES providers (id),
  state BLOB NOT NULL
) STRICT;

-- What a provider earned by accrued_at, in byte-milliseconds; null before the first time. REAL: a petabyte kept for a
-- year is past what an integer holds.
ALTER TABLE providers ADD COLUMN byte_ms REAL NOT NULL DEFAULT 0;
ALTER TABLE providers ADD COLUMN accrued_at INTEGER;
`

/** SQL of each step, in order; the first leads from an empty file to version 1. */
export const migrations: readonly string[] = [first, second, third, fourth]

function pragma(database: DatabaseSync, name: 'user_version' | 'application_id'): number {
  return Number(database.prepare(`PRAGMA ${name}`).get()?.[name])
}

/**
 * Brings the tables up to date, each step in a transaction of its own: a process killed on the way leaves a file that
 * the next start takes further.
 *
 * @throws HoldfastError `BAD_CONFIG` for a file that a newer version wrote, or that is no index of ours
 */
export function migrate(database: DatabaseSync, steps: readonly string[] = migrations): void {
  checkOurs(database)
  for (;;) {
    // Another process may be starting on the same file: what is left to do is only known once it cannot write.
    database.exec('BEGIN IMMEDIATE')
    try {
      const version = pragma(database, 'user_version')
      checkKnown(version, steps.length)
      const step = steps[version]
      if (step !== undefined) {
        database.exec(step)
        database.exec(`PRAGMA application_id = ${applicationId}; PRAGMA user_version = ${version + 1}`)
      }
      database.exec('COMMIT')
      if (step === undefined) return
    } catch (error) {
      if (database.isTransaction) database.exec('ROLLBACK')
      throw error
    }
  }
}

function checkOurs(database: DatabaseSync): void {
  const id = pragma(database, 'application_id')
  if (id === applicationId) return
  const tables = database.prepare('SELECT COUNT(*) AS n FROM sqlite_schema').get()
  if (id !== 0 || tables?.n !== 0) {
    throw new HoldfastError(
      'BAD_CONFIG',
      'this is the database of another program, not an index; name another data directory, or move the file away'
    )
  }
}

function checkKnown(version: number, known: number): void {
  if (version <= known) return
  throw new HoldfastError(
    'BAD_CONFIG',
    `the index has format ${version}, written by a newer version of this program, which knows formats up to ${known}; ` +
      'upgrade the program, or put back the copy of the index made before the upgrade',
    { details: { version, known } }
  )
}
