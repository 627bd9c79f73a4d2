/** S3's rules for the names of general purpose buckets. */
import { isIPv4 } from 'node:net'

/** Paths that the gateway serves itself. */
const reserved = new Set(['ipfs'])

export function isBucketName(name: string): boolean {
  if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(name)) return false
  if (/\.\.|\.-|-\./.test(name) || isIPv4(name) || /^\d+(\.\d+){3}$/.test(name)) return false
  if (/^(xn--|sthree-|amzn-s3-demo-)/.test(name) || /(-s3alias|--ol-s3|\.mrap|--x-s3|--table-s3)$/.test(name))
    return false
  return !reserved.has(name)
}
