/** `holdfast audit` and what else shows custody: on a gateway of our own, and on files as auditors sign them. */
import { readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createMetrics } from '../../src/admin/metrics.ts'
import { type AdminServer, startAdminServer } from '../../src/admin/server.ts'
import { HoldfastError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'
import type { Signed } from '../../src/custody/audit-messages.ts'
import { transcriptLine, writeTranscripts } from '../../src/custody/transcript.ts'
import { type Audit, audit as hold, type Scene, scene } from '../custody/audit-scene.ts'
import { type CliResult, runCli } from '../support/cli.ts'
import { FakeBackend, provider, score } from '../support/fake-backend.ts'

let directory: string
beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'holdfast-audit-'))
})
afterAll(() => rm(directory, { recursive: true, force: true }))

const jsonOf = ({ stdout }: CliResult): Record<string, unknown> => JSON.parse(stdout.toString())

describe('on a gateway', () => {
  let backend: FakeBackend
  let server: AdminServer
  beforeEach(async () => {
    backend = new FakeBackend()
    const metrics = createMetrics(backend)
    server = await startAdminServer({ host: '127.0.0.1', port: 0, backend, metrics, log: silentLog })
  })
  afterEach(() => server.close())

  const cli = (...args: string[]): Promise<CliResult> =>
    runCli(args, { cwd: directory, env: { HOLDFAST_ADMIN: server.origin } })

  describe('holdfast audit', () => {
    it('asks for everything, a provider or an object', async () => {
      expect((await cli('audit')).status).toBe(0)
      expect((await cli('audit', provider.peerId)).status).toBe(0)
      expect((await cli('audit', 's3://photos/a/../b c')).status).toBe(0)
      expect(backend.targets).toEqual([{}, { provider: provider.peerId }, { bucket: 'photos', key: 'a/../b c' }])
    })

    const unproved = (outcome: string) => ({ cid: `bafk${outcome}`, provider: provider.peerId, outcome })

    it.each([
      ['all proved', { ok: 3 }, [], 0],
      ['nothing to be proved', {}, [], 0],
      ['1 not proved, none known to be lost', { ok: 2, timeout: 1 }, [unproved('timeout')], 4],
      [
        '2 not proved, none known to be lost',
        { refused: 1, offline: 1 },
        [unproved('refused'), unproved('offline')],
        4
      ],
      ['1 MISSING OR WRONG', { ok: 1, missing: 1, timeout: 1 }, [unproved('missing'), unproved('timeout')], 6],
      ['1 MISSING OR WRONG', { wrong: 1 }, [unproved('wrong')], 6]
    ])('says "%s" of %j', async (verdict, outcomes, shards, expected) => {
      backend.round = { ...backend.round, outcomes, unproved: shards }
      const text = await cli('audit')
      expect([text.status, text.stderr]).toEqual([expected, ''])
      expect(text.stdout.toString()).toContain(`Custody:     ${verdict}\n`)
      for (const { cid, outcome } of shards)
        expect(text.stdout.toString()).toMatch(new RegExp(`^${outcome} +${cid}  ${provider.peerId}$`, 'm'))
      const json = await cli('audit', '--json')
      expect([json.status, jsonOf(json)]).toEqual([expected, backend.round])
    })

    it('says how many shards it does not name', async () => {
      backend.round = { ...backend.round, outcomes: { missing: 1200 }, unproved: [unproved('missing')] }
      expect((await cli('audit')).stdout.toString()).toContain('and 1199 more')
    })

    it.each([
      ['MISSING', 3],
      ['NO_SUCH_BUCKET', 3],
      ['OVERLOADED', 1]
    ] as const)('ends after %s with exit code %i', async (code, expected) => {
      backend.doAudit = async () => {
        throw new HoldfastError(code, 'in words')
      }
      const { status, stdout, stderr } = await cli('audit')
      expect([status, stdout.toString(), stderr]).toEqual([expected, '', 'holdfast: in words\n'])
    })

    it('lists the last audits', async () => {
      const all = await cli('audit', '--list')
      expect([all.status, all.stderr]).toEqual([0, ''])
      expect(all.stdout.toString()).toMatch(/12D3KooWProvider +12 ms +by both +3 +2 ok, 1 missing/)
      const one = await cli('audit', '--list', '--limit', '1')
      expect([one.stdout.toString().trim().split('\n').length, one.stderr]).toEqual([
        2,
        expect.stringContaining('There are more')
      ])
      const json = await cli('audit', '--list', '--limit', '1', '--json')
      expect([json.stderr, jsonOf(json)]).toEqual(['', { items: [expect.anything()], isTruncated: true }])
    })
  })

  describe('holdfast audit --export', () => {
    const lines = Buffer.from('line\n'.repeat(100_000))
    const exports = (): string[] => readdirSync(directory).filter((name) => name.includes('export'))
    afterEach(() => Promise.all(exports().map((name) => rm(path.join(directory, name)))))

    it('writes a file, or to standard output', async () => {
      backend.doExport = async function* () {
        yield lines
        yield lines
      }
      const file = await cli('audit', '--export', 'export')
      expect([file.status, file.stdout.toString()]).toEqual([0, 'export  1.0 MB\n'])
      expect(readFileSync(path.join(directory, 'export')).equals(Buffer.concat([lines, lines]))).toBe(true)
      const out = await cli('audit', '--export', '-')
      expect([out.status, out.stdout.equals(Buffer.concat([lines, lines]))]).toEqual([0, true])
      const json = await cli('audit', '--export', 'export', '--json')
      expect(jsonOf(json)).toEqual({ file: path.join(directory, 'export'), bytes: 1_000_000 })
    })

    it('leaves the old file alone when the gateway breaks off', async () => {
      await writeFile(path.join(directory, 'export'), 'old')
      backend.doExport = async function* () {
        yield lines
        throw new HoldfastError('DAMAGED', 'the index cannot be read')
      }
      const { status, stderr } = await cli('audit', '--export', 'export')
      expect([status, stderr]).toEqual([4, expect.stringContaining(`the gateway at ${server.origin} broke off`)])
      expect(readFileSync(path.join(directory, 'export'), 'utf8')).toBe('old')
      expect(exports()).toEqual(['export'])
    })
  })

  it('status says how custody stands', async () => {
    const text = (await cli('status')).stdout.toString()
    expect(text).toMatch(/^Custody: +40 audits; oldest proof \d+d \d+h ago; 2 challenges to be put again$/m)
    expect(text).toMatch(/^Standing: +2 vetted, 1 vetting, 1 suspended$/m)
  })

  it('providers shows scores, cut and not rounded', async () => {
    const { stdout } = await cli('providers')
    const [titles, row] = stdout.toString().split('\n')
    expect(titles).toMatch(/STANDING +CUSTODY +AVAILABLE +WEIGHT/)
    expect(row).toMatch(/vetted +0\.980 +0\.999 +0\.949/)
  })

  it('providers PEERID shows the score of one, and what moved it', async () => {
    const { status, stdout } = await cli('providers', provider.peerId)
    expect(status).toBe(0)
    const text = stdout.toString()
    expect(text).toMatch(/^Custody: +0\.980; 1234 proofs, 2 challenges to be put again$/m)
    expect(text).toMatch(/^Weight: +0\.949: custody 0\.980 squared$/m)
    expect(text).toMatch(/missing +1\.000 +0\.980 +bafkshard +it said that it does not have the block$/m)
    const json = jsonOf(await cli('providers', provider.peerId, '--json'))
    expect(json).toMatchObject({ provider: { peerId: provider.peerId }, score, events: [{ kind: 'missing' }] })
    const unknown = await cli('providers', '12D3KooWNobody')
    expect([unknown.status, unknown.stderr]).toEqual([3, expect.stringContaining('knows no provider 12D3KooWNobody')])
  })
})

describe('holdfast audit --verify', () => {
  let world: Scene
  beforeAll(async () => {
    world = await scene()
  })

  const verify = (input: string | Uint8Array, ...args: string[]): Promise<CliResult> =>
    runCli(['audit', '--verify', '-', ...args], { cwd: directory, input }) // and no gateway anywhere

  const audited = async (what: Audit): Promise<Signed> => (await hold(world, what)).signed
  async function fileOf(transcripts: readonly Signed[]): Promise<string> {
    const parts: Uint8Array[] = []
    for await (const part of writeTranscripts(transcripts)) parts.push(part)
    return Buffer.concat(parts).toString('utf8')
  }

  it('finds nothing wrong with what honest ones signed', async () => {
    const text = await fileOf([
      await audited({ answers: 'ooo', claims: 'ooo' }),
      await audited({ answers: '---', claims: 'fff' })
    ])
    const file = path.join(directory, 'honest')
    await writeFile(file, text)
    const { status, stdout, stderr } = await runCli(['audit', '--verify', file], { cwd: directory })
    expect([status, stderr]).toEqual([0, ''])
    expect(stdout.toString().split('\n').slice(1)).toEqual([
      expect.stringMatching(/^proved +3 +agreed +nobody /),
      expect.stringMatching(/^offline +3 +unproven +nobody /),
      '',
      '2 audits: 3 challenges agreed, 3 unproven, 0 refuted',
      ''
    ])
    expect(jsonOf(await verify(text, '--json'))).toEqual({
      faults: [],
      entries: 2,
      verdicts: { agreed: 3, unproven: 3, refuted: 0 },
      atFault: { auditor: 0, provider: 0, nobody: 6 },
      cases: { proved: 3, offline: 3 },
      holds: true
    })
  })

  it('names the provider that confessed, which is no fault of the file', async () => {
    const text = await fileOf([await audited({ answers: 'omw', claims: 'omw' })])
    const { status, stdout } = await verify(text)
    expect(status).toBe(0)
    const cids = world.shards.map(({ cid }) => cid.toString())
    const ids = `provider ${world.provider.peerId}, auditor ${world.auditor.peerId}`
    expect(stdout.toString().split('\n').slice(0, 3)).toEqual([
      `line 2: provider at fault: missing: signed that it does not have the block, or not intact; shard ${cids[1]}, ${ids}`,
      `line 2: provider at fault: wrong: signed an answer that does not verify; shard ${cids[2]}, ${ids}`,
      ''
    ])
  })

  it('names the auditor that lied', async () => {
    const text = await fileOf([await audited({ answers: 'ooo', claims: 'omo' })])
    const [human, json] = [await verify(text), await verify(text, '--json')]
    expect([human.status, json.status]).toEqual([6, 6])
    expect(human.stdout.toString()).toMatch(/^line 2: auditor at fault: altered: /)
    expect(jsonOf(json)).toMatchObject({
      faults: [
        {
          line: 2,
          atFault: 'auditor',
          case: 'altered',
          cid: world.shards[1]!.cid.toString(),
          provider: world.provider.peerId,
          auditor: world.auditor.peerId,
          outcome: 'missing'
        }
      ],
      cases: { proved: 2, altered: 1 },
      holds: false
    })
  })

  it.each([
    ['was cut off', (lines: string[]) => lines.slice(0, -1), 'damaged', [4]],
    ['lost a line', (lines: string[]) => lines.toSpliced(2, 1), 'damaged', [3]],
    ['has junk in it', (lines: string[]) => lines.with(1, '{"entry":"\u001b[31m"}'), 'damaged', [2]]
  ] as const)('says that the file %s, and blames nobody', async (_what, damage, name, at) => {
    const honest = await audited({ answers: 'ooo', claims: 'ooo' })
    const lines = (await fileOf([honest, honest])).trimEnd().split('\n')
    const { status, stdout } = await verify(`${damage(lines).join('\n')}\n`, '--json')
    expect(status).toBe(6)
    const { faults, holds } = JSON.parse(stdout.toString())
    expect([faults.map((one: { line: number }) => one.line), holds]).toEqual([at, false])
    for (const fault of faults) expect(fault).toMatchObject({ case: name, atFault: 'nobody', cid: null })
  })

  it('takes nothing that another one signed for the auditor', async () => {
    const signed = await audited({ answers: 'mmm', claims: 'mmm', signer: world.other })
    const { status, stdout } = await verify(await fileOf([signed]))
    expect([status, stdout.toString()]).toEqual([6, expect.stringMatching(/^line 2: nobody to blame: unsigned: /)])
  })

  it('reads an empty export, and no other file', async () => {
    const empty = await verify(await fileOf([]))
    expect([empty.status, empty.stdout.toString()]).toEqual([0, expect.stringContaining('no transcripts')])
    const line = transcriptLine(await audited({ answers: 'ooo', claims: 'ooo' }))
    for (const input of ['', '{}\n', `${line}\n`]) {
      const { status, stdout, stderr } = await verify(input, '--json')
      expect([status, stdout.toString(), JSON.parse(stderr).code]).toEqual([2, '', 'BAD_INPUT'])
    }
    const missing = await runCli(['audit', '--verify', 'nope'], { cwd: directory })
    expect([missing.status, missing.stderr]).toEqual([3, expect.stringContaining('no such file')])
    const tree = await runCli(['audit', '--verify', directory])
    expect([tree.status, tree.stderr]).toEqual([2, expect.stringContaining('is a directory')])
  })
})
