/**
 * A repair report: where a gateway that does not own a content has found or rebuilt its shards, signed by it, for the owner to
 * check and take over. What stands in it is a hint and nothing more; the signature says whose hint. Byte layout: FORMATS.md,
 * "Repair report".
 */
import * as dagCbor from '@ipld/dag-cbor'
import { CID } from 'multiformats/cid'
import { z } from 'zod'
import { concatBytes, equalBytes, utf8 } from '../base/bytes.ts'
import { HoldfastError } from '../base/errors.ts'
import { limits, MiB } from '../base/limits.ts'
import type { Signer, VerifySignature } from './offer.ts'

/** Of one report. A large content has several. */
export const reportBytesMax = MiB
export const reportRowsMax = 4096
export const reportProvidersMax = 256
/** Hints of one provider. */
const dataUrlsMax = 2
const addressesMax = 4

/** Why a shard has no holder that was proved: too few others to rebuild it, nobody to take it, or nobody that proved it. */
export const unhelpedReasons = ['unreadable', 'unplaced', 'unverified', 'damaged'] as const
export type UnhelpedReason = (typeof unhelpedReasons)[number]

export interface ReportedProvider {
  peerId: string
  dataUrls: readonly string[]
  addresses: readonly string[]
}

/** A shard by where it stands in the content; `segment` is null for a block of its manifest or of its UnixFS file. */
interface ReportedShard {
  segment: number | null
  index: number
  cid: CID
}

export interface HeldRow extends ReportedShard {
  /** Peer id of who proved to the helper that it has the shard. */
  provider: string
  /** Stored there by the helper; else found there. */
  isRebuilt: boolean
}

export interface UnhelpedRow extends ReportedShard {
  why: UnhelpedReason
}

export interface RepairReport {
  root: CID
  /** Peer id of who made it, and signed. */
  helper: string
  /** Milliseconds since the Unix epoch, by the helper's clock. */
  at: number
  /** Where those that rows name were reached; no two of one peer id. */
  providers: ReportedProvider[]
  held: HeldRow[]
  unhelped: UnhelpedRow[]
}

const cidSchema = z.custom<CID>((value) => CID.asCID(value) !== null)
const bytesSchema = z.custom<Uint8Array>((value) => value instanceof Uint8Array)
const peerIdSchema = z.string().min(1).max(128)
const ordinalSchema = z.number().int().nonnegative()
const shardSchema = [ordinalSchema.nullable(), ordinalSchema.max(limits.codeShardsMax - 1), cidSchema] as const

const reportSchema = z.strictObject({
  v: z.literal(1),
  root: cidSchema,
  helper: peerIdSchema,
  at: ordinalSchema,
  providers: z
    .array(
      z.tuple([
        peerIdSchema,
        z.array(z.string().max(256)).max(dataUrlsMax),
        z.array(z.string().max(256)).max(addressesMax)
      ])
    )
    .max(reportProvidersMax),
  /** Provider: its place in `providers`. */
  held: z.array(z.tuple([...shardSchema, ordinalSchema.max(reportProvidersMax - 1), z.boolean()])).max(reportRowsMax),
  unhelped: z.array(z.tuple([...shardSchema, z.enum(unhelpedReasons)])).max(reportRowsMax)
})

const envelopeSchema = z.strictObject({
  report: bytesSchema,
  signature: bytesSchema.refine(({ length }) => length > 0 && length <= 256, 'a signature')
})

/** Domain separation: a signature of a report can never pass for one of anything else. */
const signingPrefix = utf8.encode('holdfast-repair-report:')
const signed = (bytes: Uint8Array): Uint8Array => concatBytes([signingPrefix, bytes])

/** @throws HoldfastError `INTERNAL` for more than a report holds, or a row whose provider is not listed */
export async function encodeReport(
  { root, at, providers, held, unhelped }: Omit<RepairReport, 'helper'>,
  signer: Signer
): Promise<Uint8Array> {
  const placeOf = new Map(providers.map(({ peerId }, place) => [peerId, place]))
  const report = dagCbor.encode(
    reportSchema.parse({
      v: 1,
      root,
      helper: signer.peerId,
      at,
      providers: providers.map(({ peerId, dataUrls, addresses }) => [
        peerId,
        dataUrls.slice(0, dataUrlsMax),
        addresses.slice(0, addressesMax)
      ]),
      held: held.map(({ segment, index, cid, provider, isRebuilt }) => [
        segment,
        index,
        cid,
        placeOf.get(provider),
        isRebuilt
      ]),
      unhelped: unhelped.map(({ segment, index, cid, why }) => [segment, index, cid, why])
    })
  )
  const bytes = dagCbor.encode({ report, signature: await signer.sign(signed(report)) })
  if (bytes.length > reportBytesMax) throw new HoldfastError('INTERNAL', 'a repair report is longer than it may be')
  return bytes
}

/** @throws HoldfastError `BAD_INPUT` unless it is a well-formed report, signed by the helper that it names */
export async function decodeReport(bytes: Uint8Array, verify: VerifySignature): Promise<RepairReport> {
  try {
    if (bytes.length > reportBytesMax) throw new Error(`more than ${reportBytesMax} bytes`)
    const envelope = envelopeSchema.parse(dagCbor.decode(bytes))
    // One report has one encoding: what was altered on its way is not taken, even where that says the same.
    if (!equalBytes(dagCbor.encode(envelope), bytes)) throw new Error('not encoded as reports are')
    const { root, helper, at, ...rows } = reportSchema.parse(dagCbor.decode(envelope.report))
    if (!(await verify(helper, signed(envelope.report), envelope.signature))) throw new Error('bad signature')
    const providers = rows.providers.map(([peerId, dataUrls, addresses]) => ({ peerId, dataUrls, addresses }))
    if (new Set(providers.map(({ peerId }) => peerId)).size < providers.length) throw new Error('a provider twice')
    const held = rows.held.map(([segment, index, cid, place, isRebuilt]): HeldRow => {
      const provider = providers[place]
      if (provider === undefined) throw new Error(`no provider ${place}`)
      return { segment, index, cid, provider: provider.peerId, isRebuilt }
    })
    const unhelped = rows.unhelped.map(([segment, index, cid, why]): UnhelpedRow => ({ segment, index, cid, why }))
    return { root, helper, at, providers, held, unhelped }
  } catch (cause) {
    const why = cause instanceof Error && !(cause instanceof z.ZodError) ? `: ${cause.message}` : ''
    throw new HoldfastError('BAD_INPUT', `not a repair report that can be taken${why}`, { cause })
  }
}

/** How a report stands in a file of several: behind its length. */
export function frameReport(report: Uint8Array): Uint8Array {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(report.length)
  return concatBytes([length, report])
}

/**
 * The reports of a file, one after the other; no more of it is held than one of them.
 *
 * @throws HoldfastError `BAD_INPUT` where the file is no such file, or was cut short
 */
export async function* reportsIn(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let rest: Uint8Array = new Uint8Array(0)
  for await (const chunk of chunks) {
    rest = concatBytes([rest, chunk])
    while (rest.length >= 4) {
      const length = Buffer.from(rest.buffer, rest.byteOffset, 4).readUInt32BE()
      if (length === 0 || length > reportBytesMax) throw new HoldfastError('BAD_INPUT', 'not a file of repair reports')
      if (rest.length < 4 + length) break
      yield rest.subarray(4, 4 + length)
      rest = rest.subarray(4 + length)
    }
  }
  if (rest.length > 0) throw new HoldfastError('BAD_INPUT', 'the file of repair reports was cut short')
}
