/**
 * A network that heals itself, on real processes: providers are killed for good, refuse, drain and fail by the site, and a
 * new one joins for each. Somebody reads all the while, and somebody looks at every margin; at the end every byte and every
 * disk is looked at. The scenarios are those of `bench/repair`, which replaces every provider; so does this with
 * HOLDFAST_SOAK=1.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { scenarios } from '../../bench/repair/repair.ts'
import { domainOf, drainRound, killRound, refuseRound } from '../../bench/repair/scenarios.ts'
import { excessOf, type Round, Scene, type SceneInit } from '../../bench/repair/scene.ts'
import { MiB, minuteMs } from '../../src/base/limits.ts'
import { isSoak } from '../support/processes.ts'

/** Fourteen processes on a machine that runs other tests as well: what takes seconds alone may take minutes. */
const timeout = 4 * minuteMs
const seed = 1

async function startScene(objects: SceneInit['objects']): Promise<{ scene: Scene; stop: () => Promise<void> }> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'holdfast-repair-'))
  const removed = (): Promise<void> =>
    process.env.HOLDFAST_KEEP === '1' ? Promise.resolve() : rm(directory, { recursive: true, force: true })
  const log: string[] = []
  try {
    const scene = await Scene.start({
      network: {
        directory,
        providers: 12,
        domains: 6, // of two each: as many shards of a segment as 4+4 allows a domain
        code: '4+4',
        offlineGrace: '250ms',
        repairPatience: '5s',
        signal: new AbortController().signal
      },
      objects,
      healMsMax: 3 * minuteMs,
      progress: (line) => log.push(line)
    })
    const stop = async (): Promise<void> => {
      await scene.stop()
      await removed()
      if (process.env.HOLDFAST_KEEP === '1') process.stderr.write(`${directory}\n${log.join('\n')}\n`)
    }
    return { scene, stop }
  } catch (error) {
    await removed()
    throw error
  }
}

/** What 4+4 makes of 4 MiB at most; a block may have to be sent again where somebody did not answer in time. */
const shardBytesMax = MiB

function expectTraffic(round: Round, how: 'rebuilt' | 'moved'): void {
  const { shards, rebuiltBytes, movedBytes } = round.cost
  expect(shards, 'shards are elsewhere now').toBeGreaterThan(0)
  const least = how === 'rebuilt' ? rebuiltBytes : movedBytes
  const share = how === 'rebuilt' ? 0.15 : 0.05
  const moved = excessOf(round, how) * least
  const said = `of ${least} bytes in ${JSON.stringify(round)}`
  // Of a few megabytes a single shard is more than the share of them.
  expect(moved, said).toBeLessThan(least + Math.max(share * least, shardBytesMax))
  expect(moved, said).toBeGreaterThan((1 - share) * least)
}

async function expectEnd(scene: Scene, mayLeave = false): Promise<void> {
  const { reads, failures, leftovers } = await scene.end() // which checks every byte of every object
  expect(reads).toBeGreaterThan(0)
  if (mayLeave) return
  expect(failures, 'reads that failed').toEqual([])
  expect(leftovers).toEqual({ leaked: 0, leakedBytes: 0, missing: [] })
}

describe.skipIf(isSoak)('a provider goes, another one comes, and every margin is full again', () => {
  let scene: Scene
  let stop: (() => Promise<void>) | undefined

  beforeAll(async () => {
    ;({ scene, stop } = await startScene({ seed, count: 24, totalBytes: 24 * MiB }))
  }, timeout)

  afterAll(() => stop?.(), minuteMs)

  test('it is killed, and its disk is gone', { timeout }, async () => {
    const round = await killRound(scene, [scene.network.providers[0]!])
    expectTraffic(round, 'rebuilt')
    expect(round.leastMargin).toBe(3)
  })

  test('it refuses everything at once', { timeout }, async () => {
    const roots = await scene.objects.roots(scene.network)
    const round = await refuseRound(scene, scene.network.providers[0]!, roots, { now: true })
    expectTraffic(round, 'rebuilt')
    expect(round.leastMargin).toBe(3)
  })

  test('it drains: one shard is moved for each', { timeout }, async () => {
    const round = await drainRound(scene, scene.network.providers[0]!)
    expectTraffic(round, 'moved')
    expect(round.leastMargin).toBe(4)
  })

  test('it fails together with all of its site', { timeout }, async () => {
    const { domain } = scene.network.providers[0]!
    const round = await killRound(scene, domainOf(scene, domain))
    expect(round.victims).toHaveLength(2)
    expectTraffic(round, 'rebuilt')
    expect(round.leastMargin).toBe(2)
  })

  test('nothing is lost, nothing is left over, and no read has failed', { timeout }, () => expectEnd(scene))
})

describe.runIf(isSoak).each(scenarios)('every provider is replaced: $label', ({ id, how, run }) => {
  test('and all objects are identical', { timeout: 60 * minuteMs }, async () => {
    const { scene, stop } = await startScene({ seed, count: 40, totalBytes: 60 * MiB })
    try {
      const original = new Set(scene.network.providers.map(({ peerId }) => peerId))
      const rounds = await run({ scene, seed, count: original.size })
      expect(scene.network.providers.filter(({ peerId }) => original.has(peerId))).toEqual([])
      for (const round of rounds) expectTraffic(round, how)
      await expectEnd(scene, id === 'kills-gateway')
    } finally {
      await stop()
    }
  })
})
