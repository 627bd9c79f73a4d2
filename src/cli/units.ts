/** Quantities as people write and read them: strictly parsed, plainly printed. */
import { HoldfastError } from '../base/errors.ts'

const unitBytes: Record<string, number> = { '': 1, b: 1 }
for (const [power, letter] of ['k', 'm', 'g', 't', 'p'].entries()) {
  unitBytes[`${letter}b`] = 1000 ** (power + 1)
  unitBytes[`${letter}ib`] = 1024 ** (power + 1)
}

/**
 * `100GB` is 10^11 bytes, `64MiB` is 2^26, `1.5 TB` is fine, a bare number is bytes. Case does not matter.
 *
 * @throws HoldfastError `BAD_INPUT`
 */
export function parseSize(text: string): number {
  const match = /^(\d{1,16}(?:\.\d{1,9})?) ?([kmgtp]?i?b)?$/i.exec(text.trim())
  const unit = unitBytes[(match?.[2] ?? '').toLowerCase()]
  if (match === null || unit === undefined) {
    throw new HoldfastError(
      'BAD_INPUT',
      `"${text}" is not a size: write bytes, or a number with kB, MB, GB, TB, KiB, MiB, GiB or TiB, as in 100GB`
    )
  }
  const bytes = Number(match[1]) * unit
  if (!Number.isSafeInteger(Math.floor(bytes))) throw new HoldfastError('BAD_INPUT', `"${text}" is too large a size`)
  if (unit === 1 && !Number.isInteger(bytes))
    throw new HoldfastError('BAD_INPUT', `"${text}" is not a whole number of bytes`)
  return Math.floor(bytes)
}

/** `1.5 GB`: decimal units, as disks are sold. */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`
  const units = ['kB', 'MB', 'GB', 'TB', 'PB']
  let value = bytes / 1000
  let unit = 0
  while (value >= 999.95 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  return `${value >= 99.95 ? value.toFixed(0) : value.toFixed(1)} ${units[unit]}`
}

/** `2h 05m`, `3m 20s`, `7s`: two units at most. */
export function formatDuration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000))
  const two = (n: number): string => String(n).padStart(2, '0')
  if (seconds < 60) return `${seconds}s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${two(seconds % 60)}s`
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)}h ${two(Math.floor((seconds % 3600) / 60))}m`
  return `${Math.floor(seconds / 86_400)}d ${two(Math.floor((seconds % 86_400) / 3600))}h`
}

const unitMs: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

const boundOf = (ms: number): string => (ms < 1000 ? `${ms}ms` : formatDuration(ms))

/**
 * `500ms`, `2s`, `90m`, `1.5h`, `7d`, in milliseconds. A bare number is none: seconds to some, minutes to others.
 *
 * @throws HoldfastError `BAD_INPUT` unless it is one in [minMs, maxMs]
 */
export function parseDuration(text: string, minMs: number, maxMs: number): number {
  const match = /^(\d{1,9}(?:\.\d{1,3})?) ?(ms|s|m|h|d)$/.exec(text.trim())
  const ms = match === null ? Number.NaN : Math.round(Number(match[1]) * unitMs[match[2]!]!)
  if (!(ms >= minMs && ms <= maxMs)) {
    throw new HoldfastError(
      'BAD_INPUT',
      `"${text}" is not a duration from ${boundOf(minMs)} to ${boundOf(maxMs)}: write a number with ms, s, m, h or d, as in 2h`
    )
  }
  return ms
}

/** @throws HoldfastError `BAD_INPUT` unless it is a whole number in [min, max] */
export function parseInteger(text: string, what: string, min: number, max: number): number {
  const value = Number(text)
  if (!/^\d{1,16}$/.test(text) || value < min || value > max) {
    throw new HoldfastError('BAD_INPUT', `"${text}" is not ${what}: a whole number from ${min} to ${max}`)
  }
  return value
}

/** A TCP port; 0 lets the system choose. */
export const parsePort = (text: string): number => parseInteger(text, 'a port', 0, 65_535)

export interface HostPort {
  host: string
  port: number
}

/**
 * `127.0.0.1:4001`, `[::1]:4001`, `localhost:0`.
 *
 * @throws HoldfastError `BAD_INPUT`
 */
export function parseHostPort(text: string): HostPort {
  const match = /^(?:\[([0-9a-f:.]{2,45})\]|([a-z0-9](?:[a-z0-9.-]{0,252}[a-z0-9])?)):(\d{1,5})$/i.exec(text)
  if (match === null)
    throw new HoldfastError('BAD_INPUT', `"${text}" is not an address: write HOST:PORT, as in 127.0.0.1:4001`)
  return { host: (match[1] ?? match[2])!, port: parsePort(match[3]!) }
}

export interface S3Url {
  bucket: string
  /** Empty: the bucket itself. */
  key: string
}

/**
 * `s3://bucket/key/with/slashes`. Keys are taken as they stand, without percent-decoding.
 *
 * @throws HoldfastError `BAD_INPUT`
 */
export function parseS3Url(text: string): S3Url {
  const match = /^s3:\/\/([^/]*)(?:\/([\s\S]*))?$/.exec(text)
  if (match === null) throw new HoldfastError('BAD_INPUT', `"${text}" is not an S3 address: write s3://BUCKET/KEY`)
  return { bucket: match[1]!, key: match[2] ?? '' }
}

/**
 * An address that names one object.
 *
 * @throws HoldfastError `BAD_INPUT`
 */
export function parseObjectUrl(text: string): S3Url {
  const url = parseS3Url(text)
  if (url.bucket === '' || url.key === '')
    throw new HoldfastError('BAD_INPUT', `"${text}" names no object: write s3://BUCKET/KEY`)
  return url
}

const spans = [
  ['year', 365.25 * 86_400],
  ['day', 86_400],
  ['hour', 3600],
  ['minute', 60]
] as const
const yearsShownMax = 1e6

/** A time that is only roughly known: `3 days`, `2 years`, `over a million years`. */
export function formatSpan(seconds: number): string {
  if (seconds / spans[0][1] > yearsShownMax) return 'over a million years'
  for (const [name, length] of spans) {
    const count = Math.round(seconds / length)
    if (count >= 1 && seconds >= length) return `${count} ${name}${count === 1 ? '' : 's'}`
  }
  return seconds <= 0 ? 'now' : 'under a minute'
}
