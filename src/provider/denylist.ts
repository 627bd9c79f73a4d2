/**
 * Denylists as IPFS operators keep them (https://specs.ipfs.tech/compact-denylist-format/): an optional header, `---`, and a
 * rule a line. Only rules that name a block can be applied by who stores blocks: those about paths, names and media types
 * are counted, and do nothing. A line that cannot be read is reported and leaves the others in force.
 */
import { createHash } from 'node:crypto'
import { base58btc } from 'multiformats/bases/base58'
import * as Digest from 'multiformats/hashes/digest'
import { HoldfastError } from '../base/errors.ts'
import { KiB, MiB } from '../base/limits.ts'
import { blake3 } from '../content/blake3.ts'
import { CID, hashes } from '../content/cid.ts'
import { reasonCharsMax } from '../market/refusal.ts'

export const denylistBytesMax = 128 * MiB
const headerBytesMax = KiB
/** The specification's bound is 2 MiB; nothing that can be applied here has so much. */
const lineCharsMax = 4096
const rulesMax = 1_000_000
/** Lines in a report; the rest is counted. */
const problemsListed = 20
/** Lines read between two turns of the event loop. */
const linesInTurn = 5000

export interface DenyRule {
  /** What it matches: see `keyOfCid` and `hashedKeysOf`. */
  key: Uint8Array
  /** As the list names it; absent where it gives a hash of it only. */
  cid?: CID
  /** `!`: takes back what an earlier line says, and what other lines of this list say of the block in other forms. */
  isAllowed: boolean
  reason: string
}

export interface Denylist {
  /** As its header says. */
  name: string | undefined
  /** By what they match; of those that match the same the last is in force. */
  rules: Map<string, DenyRule>
  /** Rules about paths, names and media types, and of blocks that nobody can be asked to keep. */
  notApplicable: number
  problems: Array<{ line: number; why: string }>
  /** With those that are not listed. */
  problemCount: number
}

/** What a rule by CID matches: any block with its multihash, whatever codec or version names it. */
export const keyOfCid = (cid: CID): Uint8Array => cid.multihash.bytes

/**
 * What rules by hash may match the block by: hashes of its multihash in base58btc, and of its CIDv1 in base32 with a slash
 * behind it, as older lists have it.
 */
export function hashedKeysOf(cid: CID): Uint8Array[] {
  const modern = Buffer.from(base58btc.baseEncode(cid.multihash.bytes))
  const legacy = Buffer.from(`${cid.version === 0 ? cid.toV1() : cid}/`)
  return [sha256Key(modern), sha256Key(legacy), hashedKey(hashes.blake3, blake3(modern))]
}

const sha256Key = (bytes: Uint8Array): Uint8Array =>
  hashedKey(hashes.sha256, createHash('sha256').update(bytes).digest())

/** Never that of a CID: no multihash begins with 0xff. */
function hashedKey(code: number, digest: Uint8Array): Uint8Array {
  return Buffer.concat([Uint8Array.of(0xff, code), digest])
}

/** Names of nothing: refusing what is empty would refuse a part of everybody's content. */
const empty = new Set(
  [
    Digest.create(hashes.sha256, createHash('sha256').digest()),
    Digest.create(hashes.blake3, blake3(new Uint8Array(0))),
    CID.parse('QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn').multihash // an empty directory
  ].map(({ bytes }) => Buffer.from(bytes).toString('hex'))
)

export const isEmptyContent = (cid: CID): boolean => empty.has(Buffer.from(cid.multihash.bytes).toString('hex'))

/**
 * @param pause gives others their turn of the event loop
 * @throws HoldfastError `BAD_INPUT` for a header of another version or too long, and for more rules than there may be
 */
export async function parseDenylist(text: string, pause: () => Promise<void> = async () => {}): Promise<Denylist> {
  const lines = new Lines(text, pause)
  const { name, bodyAt } = await readHeader(lines)
  const list: Denylist = { name, rules: new Map(), notApplicable: 0, problems: [], problemCount: 0 }
  const reason = `on the list ${name ?? 'of this provider'}`.slice(0, reasonCharsMax)
  await lines.each(bodyAt, (untrimmed, at) => {
    const line = untrimmed.trim()
    if (line === '' || line.startsWith('#')) return
    const read = readLine(line, reason)
    if (read === 'not applicable') list.notApplicable += 1
    else if (typeof read === 'string') report(list, at, read)
    else for (const rule of read) addRule(list, rule)
  })
  return list
}

/** One at a time: a file may consist of nothing but ends of lines, and an array of all of them fits no heap. */
class Lines {
  readonly #text: string
  readonly #pause: () => Promise<void>

  constructor(text: string, pause: () => Promise<void>) {
    this.#text = text
    this.#pause = pause
  }

  /**
   * Visits the lines from the one numbered `first` on, counted from 1, until that says `false`.
   *
   * @returns the number of the line behind the last one visited
   */
  async each(first: number, visit: (line: string, number: number) => unknown): Promise<number> {
    let number = 1
    for (let from = 0; from <= this.#text.length; number++) {
      const newline = this.#text.indexOf('\n', from)
      const end = newline < 0 ? this.#text.length : newline
      if (number % linesInTurn === 0) await this.#pause()
      if (number >= first && visit(this.#text.slice(from, end), number) === false) return number + 1
      from = end + 1
    }
    return number
  }
}

function addRule({ rules }: Denylist, rule: DenyRule): void {
  const key = Buffer.from(rule.key).toString('hex')
  rules.delete(key)
  rules.set(key, rule)
  if (rules.size > rulesMax) throw new HoldfastError('BAD_INPUT', `a denylist has at most ${rulesMax} rules`)
}

function report(list: Denylist, line: number, why: string): void {
  list.problemCount += 1
  if (list.problems.length < problemsListed) list.problems.push({ line, why })
}

/** A `---` behind the first rule separates nothing. @returns the number of the first line behind the header, too */
async function readHeader(lines: Lines): Promise<{ name: string | undefined; bodyAt: number }> {
  const header: string[] = []
  let bytes = 0
  let isEnded = false
  const bodyAt = await lines.each(1, (line) => {
    isEnded = line.trimEnd() === '---'
    if (isEnded || /^[!/]/.test(line)) return false
    bytes += Buffer.byteLength(line) + 1
    return bytes > headerBytesMax + 1 || header.push(line)
  })
  if (!isEnded) return { name: undefined, bodyAt: 1 }
  if (bytes > headerBytesMax + 1)
    throw new HoldfastError('BAD_INPUT', `the header of a denylist has at most ${headerBytesMax} bytes`)
  const fieldOf = (key: string): string | undefined =>
    header
      .flatMap((line) => (line.startsWith(`${key}:`) ? [line.slice(key.length + 1).trim()] : []))
      .map((value) => value.replace(/^(["'])(.*)\1$/, '$2'))[0]
  const version = fieldOf('version') ?? '1'
  if (version !== '1')
    throw new HoldfastError('BAD_INPUT', `a denylist of version ${version.slice(0, 20)}: 1 is known here`)
  return { name: fieldOf('name')?.slice(0, 128), bodyAt }
}

/** Rules, or why there are none. */
function readLine(line: string, listReason: string): DenyRule[] | string {
  if (line.length > lineCharsMax) return 'the line is too long'
  const [item = '', ...hints] = line.split(/\s+/)
  const bad = hints.find((hint) => !/^[^=]+=/.test(hint))
  if (bad !== undefined) return `a hint is KEY=VALUE, not ${bad.slice(0, 60)}`
  const isAllowed = item.startsWith('!')
  const rule = isAllowed ? item.slice(1) : item
  const given = hints.findLast((hint) => hint.startsWith('reason='))?.slice('reason='.length)
  const reason = given === undefined ? listReason : decoded(given).slice(0, reasonCharsMax)
  if (rule.startsWith('//')) return readHash(rule.slice(2), isAllowed, reason)
  const byCid = /^\/(?:ipfs|ipld)\/([^/]*)(.*)$/.exec(rule)
  if (byCid !== null) return readCid(byCid[1]!, byCid[2]!, isAllowed, reason)
  return rule.startsWith('/') ? 'not applicable' : `a rule begins with a slash, not with ${rule.slice(0, 60)}`
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text // a percent sign of its own
  }
}

function readCid(text: string, path: string, isAllowed: boolean, reason: string): DenyRule[] | string {
  let cid: CID
  try {
    cid = CID.parse(text)
  } catch {
    return `not a CID: ${text.slice(0, 80)}`
  }
  // `/*` is the block and all below it; what is below it by name, only who resolves paths can tell.
  if (path !== '' && path !== '/' && path !== '/*') return 'not applicable'
  const { code } = cid.multihash
  if ((code !== hashes.sha256 && code !== hashes.blake3) || isEmptyContent(cid)) return 'not applicable'
  const named = cid.version === 0 ? cid.toV1() : cid
  return [{ key: keyOfCid(named), cid: named, isAllowed, reason }]
}

/** A multihash in base58btc; or a sha2-256 in hex. Text that could be both is taken for both. */
function readHash(text: string, isAllowed: boolean, reason: string): DenyRule[] | string {
  const keys: Uint8Array[] = []
  if (/^[0-9a-fA-F]{64}$/.test(text)) keys.push(hashedKey(hashes.sha256, Buffer.from(text, 'hex')))
  try {
    const { code, digest } = Digest.decode(base58btc.baseDecode(text))
    if ((code === hashes.sha256 || code === hashes.blake3) && digest.length === 32) keys.push(hashedKey(code, digest))
    else if (keys.length === 0) return `a hash by function ${code}, which is not known here`
  } catch {
    if (keys.length === 0) return `neither a multihash in base58btc nor a sha2-256 in hex: ${text.slice(0, 80)}`
  }
  return keys.map((key) => ({ key, isAllowed, reason }))
}
