/**
 * One provider that cheats among others that are well and honest: how it is found out. Fewer machines and longer shards
 * than in a run with faults, so that a block has several chunks, and days of audits take a second.
 */
import { minuteMs, secondMs } from '../base/limits.ts'
import type { CID } from '../content/cid.ts'
import { isProvable } from '../custody/answers.ts'
import type { ScoreRecord, Standing } from '../custody/score.ts'
import type { Machine } from './machine.ts'
import { seededRandom } from './seeded-random.ts'
import { World } from './world.ts'

export const cheats = [
  'drops blocks',
  'lets a block rot',
  'keeps half of each block',
  'stalls audits',
  'denies reads',
  'stalls reads'
] as const
export type Cheat = (typeof cheats)[number]

export interface CheatInit {
  seed: number
  cheat: Cheat
  /** How long the auditor has. */
  msMax: number
  /** Kills the gateway again and again, after so long on average. */
  restartEveryMs?: number
}

export interface CaughtCheat {
  /** What the auditor holds against the provider, oldest first. */
  evidence: ScoreRecord[]
  /** From the first offence to the last conclusion that was waited for. */
  afterMs: number
  standing: Standing
  /** Gateways that died meanwhile, and of those how many had contained something that the next one knew of. */
  restarts: number
  rememberedContained: number
  trace: string
}

const machines = 16
const objects = 8
const scenario = {
  code: { k: 4, m: 5 },
  shardBytesMax: 4096,
  operators: machines,
  clients: 0,
  faultsMs: 0,
  isLong: false,
  isAuditing: true
}
const pollMs = 250
/** A gateway knows at once what it was told, and writes it down when its round ends. */
const roundMs = 5 * secondMs

/**
 * Resolves when every block that is lost in secret is known to be, or the provider's first offence is; then it turns
 * honest, and all must come right.
 *
 * @throws Violation when anybody else is hurt, or nothing was found in time
 */
export async function catchCheat({ seed, cheat, msMax, restartEveryMs }: CheatInit): Promise<CaughtCheat> {
  const world = await World.create({ seed, machines, scenario })
  const random = seededRandom(`cheats ${seed}`)
  let caught: CaughtCheat | undefined
  await world.runCalm(objects, async () => {
    const cheater = [...world.machines.values()].reduce((a, b) => (b.disk.cids().length > a.disk.cids().length ? b : a))
    const lost = await begin(cheat, cheater, world)
    const startedAt = world.timeline.now
    const restarts = restartEveryMs === undefined ? undefined : new Restarts(world, cheater)
    let restartAt = startedAt + random.exponential(restartEveryMs ?? 0)
    let evidence = evidenceOf(world, cheater)
    while (!isFound(evidence, lost, cheater, world)) {
      if (world.timeline.now - startedAt > msMax)
        world.invariants.report(0, `${cheater.peerId} ${cheat}, and nobody knows after ${msMax / minuteMs} minutes`)
      await world.clock.sleep(pollMs)
      restarts?.look()
      if (restarts !== undefined && world.timeline.now >= restartAt && world.gateway !== undefined) {
        restarts.kill(random.int(secondMs))
        restartAt = world.timeline.now + random.exponential(restartEveryMs!)
      }
      evidence = evidenceOf(world, cheater)
    }
    const { standing } = world.gateway!.auditor.trustOf(cheater.peerId)
    const afterMs = world.timeline.now - startedAt
    cheater.beHonest()
    world.truth.allHonest()
    await world.converge(`after one that ${cheat}`)
    const { count = 0, remembered = 0 } = restarts ?? {}
    const { hash: trace } = world.trace
    caught = { evidence, afterMs, standing, restarts: count, rememberedContained: remembered, trace }
  })
  return caught!
}

/** Starts it. @returns blocks that are lost in secret from now on */
async function begin(cheat: Cheat, cheater: Machine, { truth, trace }: World): Promise<CID[]> {
  trace.note(`fault: ${cheater.peerId} ${cheat}`)
  // Nodes have no slices: that they are gone shows when they are read, or their leases renewed.
  const mayLose = (cid: CID): boolean =>
    isProvable(cid) && truth.segmentIdsOf(cid).length > 0 && truth.spend(cheater.peerId, cid, 'destroyed')
  const held = cheater.disk.cids()
  switch (cheat) {
    case 'drops blocks': {
      const lost = held.filter((_, i) => i % 3 === 0).filter(mayLose)
      for (const cid of lost) await cheater.disk.drop(cid)
      return lost
    }
    case 'lets a block rot': {
      const lost = [held.find(mayLose)!]
      for (const cid of lost) await cheater.disk.rot(cid)
      return lost
    }
    case 'keeps half of each block':
      // Reads are served, from wherever: its proofs alone give it away.
      truth.spendAll(cheater.peerId, held, 'denied')
      cheater.behave({ proofs: 'half' })
      return []
    case 'stalls audits':
      cheater.behave({ proofs: 'stalled' })
      return []
    case 'denies reads':
      cheater.behave({ gets: 'missing' })
      return []
    case 'stalls reads':
      cheater.behave({ gets: 'stalled' })
      return []
  }
}

function evidenceOf({ gateway }: World, { peerId }: Machine): ScoreRecord[] {
  const events = gateway?.auditor.reportOf(peerId)?.events ?? []
  return events.filter(({ kind }) => kind === 'missing' || kind === 'wrong')
}

function isFound(
  evidence: readonly ScoreRecord[],
  lost: readonly CID[],
  { peerId }: Machine,
  { truth }: World
): boolean {
  const isCountedOn = (cid: CID): boolean =>
    truth
      .segmentsOf(cid)
      .some(({ shards }) =>
        shards.some((shard) => shard.provider === peerId && shard.cid.equals(cid) && shard.state === 'healthy')
      )
  return evidence.length > 0 && !lost.some((cid) => truth.isExcused(peerId, cid) && isCountedOn(cid))
}

/** Kills gateways, and looks whether the next one knows what was contained. */
class Restarts {
  count = 0
  remembered = 0
  readonly #world: World
  readonly #cheater: Machine
  #containedSince = Number.POSITIVE_INFINITY
  /** What the next gateway is to know, if anything: it may also have concluded by the time it is looked at. */
  #expects: { evidence: number } | undefined

  constructor(world: World, cheater: Machine) {
    this.#world = world
    this.#cheater = cheater
  }

  look(): void {
    const { gateway, timeline, invariants } = this.#world
    const { peerId } = this.#cheater
    if (gateway === undefined) return
    const contained = gateway.auditor.reportOf(peerId)?.contained ?? 0
    if (this.#expects !== undefined) {
      const isConcluded = evidenceOf(this.#world, this.#cheater).length > this.#expects.evidence
      if (contained > 0) this.remembered += 1
      else if (!isConcluded) invariants.report(0, `the next gateway does not know what ${peerId} left unanswered`)
      this.#expects = undefined
    }
    if (contained === 0) this.#containedSince = Number.POSITIVE_INFINITY
    else this.#containedSince = Math.min(this.#containedSince, timeline.now)
  }

  kill(backAfterMs: number): void {
    const evidence = evidenceOf(this.#world, this.#cheater).length
    if (!this.#world.killGateway(backAfterMs)) return
    this.count += 1
    if (this.#world.timeline.now - this.#containedSince >= roundMs) this.#expects = { evidence }
    this.#containedSince = Number.POSITIVE_INFINITY
  }
}
