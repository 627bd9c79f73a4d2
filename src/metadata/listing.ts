/**
 * S3's grouping of keys by a delimiter, over any ordered index: whole groups are jumped over, so that a page costs
 * what it shows, not what it hides.
 */
import type { ObjectIndex } from './index-store.ts'
import type { StoredObject } from './records.ts'

export interface ListOptions {
  prefix: string
  /** Empty: no grouping. */
  delimiter: string
  /**
   * Strictly after this. Where it is a common prefix itself, all keys under it are passed over; where it lies among
   * them, those after it still make that common prefix appear.
   */
  after: string
  limit: number
}

export interface Listing {
  objects: StoredObject[]
  commonPrefixes: string[]
  isTruncated: boolean
  /** Where more follow: the last key or common prefix, to pass as `after`. */
  nextAfter?: string
}

/** Keys asked for at once while groups are being jumped, and at most. */
const batchMin = 8
const batchMax = 1000

interface Cursor {
  after: string
  inclusive: boolean
}

/** Objects and common prefixes of a bucket, together in UTF-8 byte order, at most `limit` of both together. */
export async function listWithDelimiter(
  index: Pick<ObjectIndex, 'listObjects'>,
  bucket: string,
  { prefix, delimiter, after, limit }: ListOptions
): Promise<Listing> {
  const listing: Listing = { objects: [], commonPrefixes: [], isTruncated: false }
  if (limit <= 0) return listing
  const groupOf = (key: string): string | undefined => commonPrefixOf(key, prefix, delimiter)
  let last = ''
  let cursor: Cursor | undefined = groupOf(after) === after ? behind(after) : { after, inclusive: false }
  let batch = delimiter === '' ? batchMax : batchMin

  while (cursor !== undefined) {
    const room = limit - listing.objects.length - listing.commonPrefixes.length
    // One more than there is room for tells whether the page is cut.
    const page = await index.listObjects(bucket, { prefix, ...cursor, limit: Math.min(batch, room + 1) })
    let group: string | undefined
    let hidden = 0
    for (const object of page.items) {
      if (group !== undefined && object.key.startsWith(group)) {
        hidden += 1
        continue
      }
      if (listing.objects.length + listing.commonPrefixes.length === limit) {
        return { ...listing, isTruncated: true, nextAfter: last }
      }
      group = groupOf(object.key)
      if (group === undefined) listing.objects.push(object)
      else listing.commonPrefixes.push(group)
      last = group ?? object.key
    }
    if (!page.isTruncated) return listing
    cursor = group === undefined ? { after: last, inclusive: false } : behind(group)
    batch = hidden * 2 > page.items.length ? batchMin : Math.min(batch * 2, batchMax)
  }
  return listing
}

/** The key up to and with the first delimiter after the prefix; none where the key stands for itself. */
function commonPrefixOf(key: string, prefix: string, delimiter: string): string | undefined {
  if (delimiter === '' || !key.startsWith(prefix)) return undefined
  const at = key.indexOf(delimiter, prefix.length)
  return at === -1 ? undefined : key.slice(0, at + delimiter.length)
}

/** Where the keys begin that come after all with this prefix; none where nothing can. */
function behind(prefix: string): Cursor | undefined {
  const points = Array.from(prefix, (character) => character.codePointAt(0)!)
  while (points.at(-1) === 0x10ffff) points.pop()
  const last = points.pop()
  if (last === undefined) return undefined
  // UTF-8 sorts by code point; the surrogates are none.
  const next = last === 0xd7ff ? 0xe000 : last + 1
  return { after: String.fromCodePoint(...points, next), inclusive: true }
}
