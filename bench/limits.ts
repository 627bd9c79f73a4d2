/**
 * What the machine could do: each step that an object's bytes go through, alone, on one thread, with nothing else going
 * on. Every figure of the network is to be read beside these.
 */
import { createHash, webcrypto } from 'node:crypto'
import { mkdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { blake3 as nobleBlake3 } from '@noble/hashes/blake3.js'
import { createMD5, createSHA256 } from 'hash-wasm'
import { forEachLimit } from '../src/base/concurrency.ts'
import { writeFileDurably } from '../src/base/durable-file.ts'
import { MiB } from '../src/base/limits.ts'
import { blake3, blake3Implementation } from '../src/content/blake3.ts'
import { type Code, formatCode, parseCode } from '../src/erasure/erasure-coder.ts'
import { cipherAt } from '../src/object/cipher.ts'
import { codeFor } from '../src/placement/place.ts'
import { simdLevel } from '../src/wasm/assembler.ts'
import { seededBytes } from './data.ts'
import {
  type BenchContext,
  type Benchmark,
  expectSame,
  measureRow,
  type Outcome,
  ratesOf,
  rateUnits,
  samplingOf,
  timed
} from './harness.ts'
import { stagedContender } from './kernel/contenders.ts'
import { encodeRows } from './kernel/erasure.ts'
import { hashRow } from './kernel/hash.ts'
import { loopbackTls } from './limits/loopback-tls.ts'
import type { Row } from './result.ts'

/** Providers of the default network: what the code follows from. */
export const providersDefault = 12

/** The code that STANDARD objects get in such a network. */
export function codeInUse({ code, providers }: Pick<BenchContext, 'code' | 'providers'>): Code {
  const chosen = code === undefined ? codeFor(providers ?? providersDefault, 'STANDARD') : parseCode(code)
  if (chosen === undefined) throw new RangeError(`no code for ${providers} providers`)
  return chosen
}

export const limits: Benchmark = { name: 'limits', title: "The machine's own limits", run: measureLimits }

export async function measureLimits(context: BenchContext): Promise<Outcome> {
  const { scale, seed, directory, progress, signal } = context
  const isFull = scale === 'full'
  const sampling = samplingOf(scale)
  const tlsBytes = (isFull ? 512 : 16) * MiB
  const buffers = isFull ? 64 : 4
  const files = isFull ? 64 : 8
  const [md5, sha256] = await Promise.all([createMD5(), createSHA256()])
  const common = { seed, buffers, sampling, signal }
  progress('limits: TLS copy, hashes, cipher, code, disk')
  const rows: Row[] = [
    await loopbackTls({ seed, size: tlsBytes, sampling, signal }),
    await hashRow({
      ...common,
      id: 'blake3',
      label: `BLAKE3 (${blake3Implementation})`,
      digest: blake3,
      oracle: nobleBlake3
    }),
    await hashRow({
      ...common,
      id: 'md5',
      label: 'MD5',
      digest: (bytes) => createHash('md5').update(bytes).digest(),
      oracle: (bytes) => md5.init().update(bytes).digest('binary')
    }),
    await hashRow({
      ...common,
      id: 'sha256',
      label: 'SHA-256',
      digest: (bytes) => createHash('sha256').update(bytes).digest(),
      oracle: (bytes) => sha256.init().update(bytes).digest('binary')
    }),
    await cipherRow({ seed, buffers, sampling, signal }),
    await encodeRow(context),
    ...(await durableWriteRows({ directory, seed, files, sampling, signal }))
  ]
  return {
    parameters: { tlsBytes, hashedBuffers: buffers, files, ...sampling },
    notes: [
      'CPU and hash rows: one thread, buffers of 1 MiB. TLS: CPU-seconds of both ends. RS: MB and GB of data.',
      'Writes: 1 MiB to a new file, fsync, rename, fsync of the directory, as a provider keeps a shard.'
    ],
    rows
  }
}

/** Coding as the gateway does it. */
async function encodeRow(context: BenchContext): Promise<Row> {
  const { scale, seed, signal } = context
  const code = codeInUse(context)
  const contenders = [stagedContender(simdLevel)]
  const productBytes = (scale === 'full' ? 128 : 1) * MiB
  const sampling = samplingOf(scale)
  const [row] = await encodeRows({ contenders, code, shardBytes: MiB, seed, productBytes, sampling, signal })
  return { ...row!, id: `encode-${formatCode(code)}` }
}

type RowContext = Pick<Parameters<typeof hashRow>[0], 'seed' | 'buffers' | 'sampling' | 'signal'>

async function cipherRow({ seed, buffers, sampling, signal }: RowContext): Promise<Row> {
  const bytes = seededBytes(seed, buffers * MiB)
  const key = seededBytes(seed + 1, 32)
  const nonce = seededBytes(seed + 2, 8)
  const expected = await webCryptoCtr(key, nonce, bytes)
  return await measureRow({
    id: 'aes',
    label: 'AES-256-CTR',
    units: rateUnits,
    sampling,
    signal,
    take: async () =>
      ratesOf(
        bytes.length,
        await timed(
          () => {
            const encrypt = cipherAt({ key, nonce }, 0)
            return Array.from({ length: buffers }, (_, i) => encrypt(bytes.subarray(i * MiB, (i + 1) * MiB)))
          },
          (parts) => expectSame(Buffer.concat(parts), expected, 'AES-256-CTR')
        )
      )
  })
}

async function webCryptoCtr(key: Buffer<ArrayBuffer>, nonce: Buffer, bytes: Buffer<ArrayBuffer>): Promise<Uint8Array> {
  const imported = await webcrypto.subtle.importKey('raw', key, 'AES-CTR', false, ['encrypt'])
  const counter = Buffer.concat([nonce, Buffer.alloc(8)])
  return new Uint8Array(await webcrypto.subtle.encrypt({ name: 'AES-CTR', counter, length: 64 }, imported, bytes))
}

interface WriteInit extends Omit<RowContext, 'buffers'> {
  directory: string
  files: number
}

async function durableWriteRows(init: WriteInit): Promise<Row[]> {
  const rows: Row[] = []
  for (const width of [1, 16]) rows.push(await durableWriteRow(init, width))
  return rows
}

async function durableWriteRow({ directory, seed, files, sampling, signal }: WriteInit, width: number): Promise<Row> {
  const bytes = seededBytes(seed, MiB)
  return await measureRow({
    id: `fsync-c${width}`,
    label: `fsynced 1 MiB files, ${width} at once`,
    units: rateUnits,
    sampling,
    signal,
    take: async () => {
      const place = join(directory, 'writes')
      await mkdir(place)
      const paths = Array.from({ length: files }, (_, i) => join(place, String(i)))
      try {
        const cost = await timed(
          () => forEachLimit(paths, width, (path) => writeFileDurably(path, bytes)),
          async () => {
            for (const path of paths) expectSame(await readFile(path), bytes, `the file ${path}`)
          }
        )
        return ratesOf(files * MiB, cost)
      } finally {
        await rm(place, { recursive: true })
      }
    }
  })
}
