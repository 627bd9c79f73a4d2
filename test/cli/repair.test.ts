/** `holdfast repair` against a gateway that answers from memory. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createMetrics } from '../../src/admin/metrics.ts'
import { type AdminServer, startAdminServer } from '../../src/admin/server.ts'
import { silentLog } from '../../src/base/log.ts'
import { cidOfNode, codecs } from '../../src/content/cid.ts'
import { frameReport } from '../../src/market/repair-report.ts'
import { type CliResult, runCli } from '../support/cli.ts'
import { acceptance, FakeBackend, help, plan } from '../support/fake-backend.ts'

let directory: string
beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'holdfast-repair-'))
})
afterAll(() => rm(directory, { recursive: true, force: true }))

const root = cidOfNode(codecs.dagCbor, Buffer.from('root')).toString()
const jsonOf = ({ stdout }: CliResult): Record<string, unknown> => JSON.parse(stdout.toString())

describe('holdfast repair', () => {
  let backend: FakeBackend
  let server: AdminServer
  beforeEach(async () => {
    backend = new FakeBackend()
    const metrics = createMetrics(backend)
    server = await startAdminServer({ host: '127.0.0.1', port: 0, backend, metrics, log: silentLog })
  })
  afterEach(() => server.close())

  const cli = (...args: string[]): Promise<CliResult> =>
    runCli(['repair', ...args], { cwd: directory, env: { HOLDFAST_ADMIN: server.origin } })

  it('asks again until all of the content was gone through, and writes all reports into one file', async () => {
    const rounds = [
      { next: 5, reports: ['AAEC', 'Aw=='] },
      { next: null, unhelped: { unplaced: 2 }, reports: ['BAU='] }
    ]
    backend.repairContent = async (cid, from) => {
      backend.asked.push(`${cid} ${from}`)
      return { ...help, ...rounds.shift()!, root: cid, from }
    }
    const result = await cli('--cid', root, '--json')
    expect(result.status).toBe(4)
    expect(jsonOf(result)).toMatchObject({ units: 6, rebuilt: 2, found: 40, unhelped: { unplaced: 2 } })
    expect(backend.asked).toEqual([`${root} 0`, `${root} 5`])
    const file = await readFile(path.join(directory, `${root}.repair`))
    const reports = [Uint8Array.of(0, 1, 2), Uint8Array.of(3), Uint8Array.of(4, 5)]
    expect(Buffer.compare(file, Buffer.concat(reports.map(frameReport)))).toBe(0)
  })

  it('shows what it has done, and is content when nothing is left', async () => {
    const { status, stdout } = await cli('--cid', root, '--report', 'r')
    expect(status).toBe(0)
    expect(stdout.toString()).toMatch(/^Rebuilt: +1 shards \(2.0 kB read, 1.0 kB written\)$/m)
  })

  it('hands over the reports of a file one by one, and says what became of them', async () => {
    const file = path.join(directory, 'two')
    await writeFile(file, Buffer.concat([frameReport(Buffer.alloc(10)), frameReport(Buffer.alloc(20))]))
    const { status, stdout } = await cli('--accept', file)
    expect([status, backend.asked]).toEqual([0, ['report of 10 bytes', 'report of 20 bytes']])
    expect(stdout.toString()).toMatch(/^Taken over: +2 shards$/m)
    backend.acceptReport = async () => ({ ...acceptance, rows: { accepted: 1, unproved: 1 } })
    expect((await cli('--accept', file)).status).toBe(6)
    backend.acceptReport = async () => ({ ...acceptance, rows: { busy: 1 } })
    expect((await cli('--accept', file)).status).toBe(4)
  })

  it('shows the plan with totals, and moves nothing', async () => {
    const { status, stdout } = await cli('--dry-run')
    expect([status, backend.asked]).toEqual([0, ['repairs 1000 eager']])
    expect(stdout.toString()).toMatch(/^Plan: +1 segment, 1 shard to place$/m)
    expect(stdout.toString()).toMatch(/^ +1 +1\+2 +1 +1 +12 days +1 lost$/m)
    expect(jsonOf(await cli('--dry-run', '--json'))).toEqual(plan)
  })

  it('goes on until nothing can be done, and says what is left', async () => {
    const totals = { ...plan.totals, repairs: 2, shardsRebuilt: 3, bytesRead: 1000 }
    backend.repairRounds = [
      { done: totals, left: plan, isPartial: true },
      { done: totals, left: { ...plan, items: [] }, isPartial: false }
    ]
    const whole = await cli()
    expect([whole.status, backend.asked]).toEqual([0, ['repair', 'repair']])
    expect(whole.stdout.toString()).toMatch(/^Done: +6 shards rebuilt and 0 moved, of 4 segments$/m)
    const { status, stdout } = await cli()
    expect(status).toBe(4)
    expect(stdout.toString()).toMatch(/^Repair: +1 segment left$/m)
  })

  it('says what is wrong before it asks anybody', async () => {
    await writeFile(path.join(directory, 'junk'), 'this is no file of reports')
    const bad = [
      ['--dry-run', '--cid', root],
      ['--cid', 'x'],
      ['--report', 'f'],
      ['--cid', root, '--accept', 'f'],
      ['--accept', 'junk']
    ]
    for (const args of bad) expect([args, (await cli(...args)).status]).toEqual([args, 2])
    expect((await cli('--accept', 'absent')).status).toBe(3)
    expect(backend.asked).toEqual([])
  })
})
