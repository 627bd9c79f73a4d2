/** A gateway's memory does not grow with an object's size: not in one request, nor in parts, nor in a download. */
import { readFile } from 'node:fs/promises'
import { request } from 'node:http'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { CreateBucketCommand, GetObjectCommand } from '@aws-sdk/client-s3'
import { Upload } from '@aws-sdk/lib-storage'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { MiB } from '../../src/base/limits.ts'
import { sha256Of, sha256OfStream, streamOf } from '../support/bytes.ts'
import { isSoak, ProcessNetwork } from '../support/processes.ts'
import { presign } from '../support/s3-gateway.ts'

/** What the project promises, for 5 GiB: also the most that S3 takes in one PUT. */
const residentBytesMax = 400e6
/** By itself more than that. */
const sizeBytes = isSoak ? 5 * 1024 * MiB : 400 * MiB
const bucket = 'memory'
const timeout = isSoak ? 3_600_000 : 180_000

let network: ProcessNetwork

beforeAll(async () => {
  network = await ProcessNetwork.start({ providers: 12 })
  await network.gateway.s3().send(new CreateBucketCommand({ Bucket: bucket }))
}, 180_000)

afterAll(() => network?.stop(), 60_000)

/** The most memory that the gateway's process has had resident since it started. */
async function peakResidentBytes(): Promise<number> {
  const status = await readFile(`/proc/${await network.gatewayPid()}/status`, 'utf8')
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)![1]) * 1024
}

/** One PUT of a body that is made as it is sent; the SDK would hash it first, or cut it into parts. */
async function putInOne(key: string): Promise<void> {
  const { endpoint, credentials } = network.gateway
  const { hostname, port } = new URL(endpoint)
  const path = presign(Number(port), 'PUT', `/${bucket}/${key}`, credentials, { expires: '7200' })
  const outgoing = request({ hostname, port, method: 'PUT', path, headers: { 'content-length': sizeBytes } })
  const answered = new Promise<number>((resolve, reject) => {
    outgoing.once('response', (response) => {
      response.resume()
      resolve(response.statusCode!)
    })
    outgoing.once('error', reject)
  })
  await pipeline(streamOf(key, sizeBytes), outgoing)
  expect(await answered).toBe(200)
}

async function hashOf(key: string): Promise<string> {
  const { Body } = await network.gateway.s3().send(new GetObjectCommand({ Bucket: bucket, Key: key }))
  return await sha256OfStream(Body as Readable)
}

test(`an upload of ${sizeBytes / MiB} MiB in one request, and its download`, { timeout }, async () => {
  await putInOne('one')
  expect.soft(await peakResidentBytes(), 'while uploading').toBeLessThan(residentBytesMax)
  expect(await hashOf('one')).toBe(sha256Of('one', sizeBytes))
  expect(await peakResidentBytes(), 'while downloading').toBeLessThan(residentBytesMax)
})

test('an upload in parts, many at once, and two downloads side by side', { timeout }, async () => {
  const partsBytes = sizeBytes / 2
  const client = network.gateway.s3()
  const params = { Bucket: bucket, Key: 'parts', Body: streamOf('parts', partsBytes) }
  await new Upload({ client, params, partSize: 8 * MiB, queueSize: 10 }).done()
  expect.soft(await peakResidentBytes(), 'while uploading').toBeLessThan(residentBytesMax)
  const expected = sha256Of('parts', partsBytes)
  expect(await Promise.all([hashOf('parts'), hashOf('parts')])).toEqual([expected, expected])
  expect(await peakResidentBytes(), 'while downloading').toBeLessThan(residentBytesMax)
})
