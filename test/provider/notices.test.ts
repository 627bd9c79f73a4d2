import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'
import { systemRandom } from '../../src/base/system.ts'
import { type CID, cidOfShard } from '../../src/content/cid.ts'
import { MemoryLeaseStore } from '../../src/provider/memory-lease-store.ts'
import { Notices } from '../../src/provider/notices.ts'
import { refusalAnswer, refusalRequest, type Tell } from '../../src/transfer/refusal-protocol.ts'
import { ManualClock } from '../support/provider.ts'

class WaitingClock extends ManualClock {
  // Nothing here waits for a deadline to pass.
  override sleep = (_ms?: number, signal?: AbortSignal): Promise<void> =>
    new Promise((_resolve, reject) => signal?.addEventListener('abort', () => reject(signal.reason)))
}

const cids = Array.from({ length: 1500 }, () => cidOfShard(randomBytes(8)))
const directories: string[] = []
afterEach(async () => {
  for (const path of directories.splice(0)) await rm(path, { recursive: true, force: true })
})

async function scene() {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-notices-'))
  directories.push(directory)
  const leases = new MemoryLeaseStore()
  const clock = new WaitingClock()
  const told: Array<{ to: string } & Tell> = []
  const onTell: Array<() => Promise<void>> = []
  const absent = new Set<string>()
  const ended = new Set<string>()
  const open = (): Notices =>
    new Notices(
      {
        network: {
          request: async ({ peerId }, _protocol, body) => {
            if (absent.has(peerId)) throw new HoldfastError('OFFLINE', 'not there')
            const request = refusalRequest.decode(body)
            if (request.op === 'tell') told.push({ to: peerId, ...request })
            for (const heard of onTell) await heard()
            return refusalAnswer.encode({ v: 1 })
          }
        },
        leases,
        signedOf: async (all) => all.map((cid) => (ended.has(cid.toString()) ? undefined : new Uint8Array(40))),
        clock,
        random: systemRandom,
        log: silentLog
      },
      join(directory, 'notices.sqlite')
    )
  /** Leases what is lost. */
  const lease = async (owner: string, leased: readonly CID[]): Promise<void> => {
    await leases.grant(leased.map((cid) => ({ cid, owner, until: Number.MAX_SAFE_INTEGER, bytes: 1 })))
    await leases.lose(leased, 'rotten')
  }
  return { open, leases, lease, told, onTell, absent, ended, clock }
}

describe('notices to gateways', () => {
  test('everybody who leases a block is told that it is lost, once', async () => {
    const { open, lease, told } = await scene()
    const notices = open()
    await lease('a', cids.slice(0, 2))
    await lease('b', cids.slice(1, 3))
    await notices.lost([cids[1]!, cids[5]!])
    expect(await notices.turn()).toBeUndefined()
    await notices.turn()
    expect(told.map(({ to, lost, refusals }) => [to, lost.map(String), refusals.length]).sort()).toEqual([
      ['a', [cids[1]!.toString()], 0],
      ['b', [cids[1]!.toString()], 0]
    ])
    await notices.stop()
  })

  test('a block that was brought again meanwhile is not told to be lost', async () => {
    const { open, lease, leases, told, absent, clock } = await scene()
    const notices = open()
    await lease('a', cids.slice(0, 2))
    absent.add('a')
    await notices.lost(cids.slice(0, 2))
    clock.advance((await notices.turn())! - clock.now())
    absent.clear()
    await leases.find(cids[0]!)
    expect(await notices.turn()).toBeUndefined()
    expect(told.map(({ lost }) => lost.map(String))).toEqual([[cids[1]!.toString()]])
    await notices.stop()
  })

  test('who does not answer is told again, later and later, over restarts too', async () => {
    const { open, lease, told, absent, clock } = await scene()
    let notices = open()
    await lease('a', cids.slice(0, 1))
    absent.add('a')
    await notices.lost([cids[0]!])
    const pauses: number[] = []
    for (let i = 0; i < 15; i++) {
      const next = (await notices.turn())!
      expect(await notices.turn()).toBe(next) // not before its time
      pauses.push(next - clock.now())
      clock.advance(next - clock.now())
    }
    expect(pauses[0]).toBeLessThan(1300)
    expect(Math.max(...pauses)).toBeLessThanOrEqual(1.25 * 600_000)
    expect(Math.min(...pauses.slice(-3))).toBeGreaterThanOrEqual(0.75 * 600_000)
    await notices.stop()
    notices = open()
    expect(notices.waiting).toBe(1)
    absent.clear()
    await notices.turn()
    expect(told).toHaveLength(1)
    expect(notices.waiting).toBe(0)
    await notices.stop()
  })

  test('of a lost block that is leased no more nothing is said; of a refused one it is, as lost where that has ended', async () => {
    const { open, leases, lease, told, ended } = await scene()
    const notices = open()
    await lease('a', cids.slice(0, 3))
    await notices.lost([cids[0]!])
    await notices.refused([cids[1]!, cids[2]!], false)
    await leases.evict(cids.slice(0, 3))
    ended.add(cids[2]!.toString())
    await notices.turn()
    expect(told.map(({ lost, refusals }) => [lost.map(String), refusals.length])).toEqual([[[`${cids[2]}`], 1]])
    expect(notices.waiting).toBe(0)
    await notices.stop()
  })

  test('comes in messages of a bounded size, those about a hand-over apart', async () => {
    const { open, lease, told } = await scene()
    const notices = open()
    await lease('a', cids)
    await notices.lost(cids.slice(0, 1100))
    await notices.refused(cids.slice(1100, 1400), false)
    await notices.refused(cids.slice(1400), true)
    await notices.turn()
    const sum = (of: (one: Tell) => number, only = told): number => only.reduce((all, one) => all + of(one), 0)
    expect(sum(({ lost }) => lost.length)).toBe(1100)
    const handedOver = told.filter(({ handOver }) => handOver)
    expect([sum(({ refusals }) => refusals.length), sum(({ refusals }) => refusals.length, handedOver)]).toEqual([
      400, 100
    ])
    await notices.stop()
  })

  test('whoever is slow to hear much does not hold up what others are to be told', async () => {
    const { open, leases, told, onTell } = await scene()
    const notices = open()
    const many = Array.from({ length: 2048 }, () => cidOfShard(randomBytes(8)))
    await leases.grant(many.map((cid) => ({ cid, owner: 'a', until: Number.MAX_SAFE_INTEGER, bytes: 1 })))
    await leases.grant([{ cid: cids[0]!, owner: 'b', until: Number.MAX_SAFE_INTEGER, bytes: 1 }])
    // While the one is being told a lot, there comes something for the other.
    onTell.push(async () => {
      if (told.length === 1) await notices.refused([cids[0]!], true)
    })
    await notices.refused(many, false)
    const next = await notices.turn()
    expect(next).toBeDefined() // there is more, at the next turn
    expect(told.filter(({ to }) => to === 'a').length).toBeLessThan(6)
    for (let turns = 0; turns < 3; turns++) await notices.turn()
    expect(told.some(({ to }) => to === 'b')).toBe(true)
    expect(notices.waiting).toBe(0)
    await notices.stop()
  })

  test('of a block that is refused no more nothing is said where it is still there, and that it is lost where it is not', async () => {
    const { open, leases, told, ended } = await scene()
    const notices = open()
    const [dropped, kept] = cids as [CID, CID]
    await leases.grant([dropped, kept].map((cid) => ({ cid, owner: 'a', until: Number.MAX_SAFE_INTEGER, bytes: 1 })))
    await notices.refused([dropped, kept], false)
    await leases.evict([dropped])
    for (const cid of [dropped, kept]) ended.add(cid.toString())
    await notices.turn()
    expect(told.map(({ lost, refusals }) => [lost.map(String), refusals.length])).toEqual([[[`${dropped}`], 0]])
    await notices.stop()
  })

  test('what nobody has wanted to hear for a week is dropped', async () => {
    const { open, lease, absent, clock } = await scene()
    const notices = open()
    await lease('a', cids.slice(0, 1))
    absent.add('a')
    await notices.lost([cids[0]!])
    clock.advance(8 * 86_400_000)
    expect(await notices.turn()).toBeUndefined()
    expect(notices.waiting).toBe(0)
    await notices.stop()
  })
})
