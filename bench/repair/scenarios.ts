/** What may happen to a network that heals itself: ways to lose a provider, and what goes on meanwhile. */
import { open } from 'node:fs/promises'
import { forEachLimit } from '../../src/base/concurrency.ts'
import { systemClock } from '../../src/base/system.ts'
import { localProvider } from '../../src/cli/provider-client.ts'
import type { DrainState } from '../../src/provider/drain.ts'
import type { RefusalsShown } from '../../src/provider/refuse-routes.ts'
import { type SeededRandom, seededRandom } from '../../src/sim/seeded-random.ts'
import { blockFile, type Provider } from './network.ts'
import { runProgramWell } from './node-process.ts'
import type { Round, Scene } from './scene.ts'
import { waitUntil } from './wait.ts'

/** `kill -9`, and their disks are gone. */
export async function killRound(
  scene: Scene,
  victims: readonly Provider[],
  restored?: () => Promise<Set<string>>
): Promise<Round> {
  const lose = async (): Promise<number> => {
    await scene.network.lose(victims)
    return 0
  }
  return await scene.round(victims, lose, { restored })
}

const refusalsAtOnce = 4

/** It refuses every root, and says so; until nothing of them is leased there. */
export async function refuseRound(
  scene: Scene,
  victim: Provider,
  roots: readonly string[],
  { now }: { now: boolean }
): Promise<Round> {
  const lose = async (): Promise<number> => {
    // What `holdfast refuse` asks for, without a process for each of hundreds of roots.
    const provider = await localProvider(victim.data, scene.signal)
    await forEachLimit(roots, refusalsAtOnce, async (cid) => {
      await provider.request('POST', '/refuse', { cid, reason: 'not here', now })
    })
    await untilEmpty(scene, victim)
    return await broughtBytes(scene, victim)
  }
  return await scene.round([victim], lose)
}

/** It hands over what it holds, and its operator stops it when it says that nothing is left. */
export async function drainRound(scene: Scene, victim: Provider): Promise<Round> {
  const lose = async (): Promise<number> => {
    const { stdout } = await runProgramWell(['drain', '--data', victim.data, '--json'], scene.signal)
    return drainedBytes(stdout)
  }
  return await scene.round([victim], lose, { areServing: true })
}

/** A line for each change, of which the last has the total of what was sent, in vain or not. */
function drainedBytes(stdout: string): number {
  const last = stdout.trimEnd().split('\n').at(-1)!
  const { state, sentBytes } = JSON.parse(last) as Pick<DrainState, 'state' | 'sentBytes'>
  if (state !== 'done') throw new Error(`the drain ended at ${last}`)
  return sentBytes
}

/** What it sent of what it refuses, in vain or not, by its own account: once it knows that nothing of it is kept. */
async function broughtBytes({ signal, healMsMax }: Scene, { data, name }: Provider): Promise<number> {
  const done = async (): Promise<number | undefined> => {
    const { stdout } = await runProgramWell(['refuse', '--show', '--data', data, '--json'], signal)
    const { kept, brought } = JSON.parse(stdout) as Pick<RefusalsShown, 'kept' | 'brought'>
    return kept === 0 ? brought.sentBytes : undefined
  }
  return await waitUntil(`${name} keeps nothing of it`, done, { msMax: healMsMax, signal })
}

/** Until the gateway leases nothing there. */
async function untilEmpty(scene: Scene, { peerId, name }: Provider): Promise<void> {
  await waitUntil(
    `nothing is leased at ${name}`,
    async () => {
      const view = (await scene.network.providerViews()).find((one) => one.peerId === peerId)
      if (view?.shards === 0) return true
      throw new Error(`${view?.shards} shards are`)
    },
    { msMax: scene.healMsMax, signal: scene.signal }
  )
}

/** One after another, until none is left of the providers that the network began with. */
export async function replaceAll(
  scene: Scene,
  replace: (victim: Provider, number: number) => Promise<Round>,
  count = scene.network.providers.length
): Promise<Round[]> {
  const rounds: Round[] = []
  for (const [number, victim] of scene.network.providers.slice(0, count).entries()) {
    rounds.push(await replace(victim, number))
  }
  return rounds
}

/** The gateway is killed every so often, and started again at once, while `work` goes on. */
export async function whileGatewayCrashes<T>(
  scene: Scene,
  everyMs: number,
  work: () => Promise<T>
): Promise<{ result: T; crashes: number }> {
  const stopping = new AbortController()
  let crashes = 0
  const crashing = (async () => {
    while (!stopping.signal.aborted) {
      await systemClock.sleep(everyMs, stopping.signal).catch(() => {}) // it is over
      if (stopping.signal.aborted) return
      await scene.crashGateway()
      crashes++
    }
  })()
  try {
    // A gateway that does not come back ends the scenario, instead of letting it wait for what cannot happen.
    const failed = crashing.then(() => Promise.race<never>([]))
    return { result: await Promise.race([work(), failed]), crashes }
  } finally {
    stopping.abort(new Error('the scenario is over'))
    await crashing.catch(() => {}) // thrown above
  }
}

interface Flip {
  provider: string
  cid: string
  file: string
  /** What the byte was before. */
  byte: number
}

/**
 * Turns a bit in shards on the providers' disks: never in two of one segment at a time, so that rot alone takes one shard
 * of its margin and no more.
 */
export class BitFlipper {
  flipped = 0
  readonly #scene: Scene
  readonly #random: SeededRandom
  /** By segment: what is rotten now, as far as we know. */
  readonly #outstanding = new Map<string, Flip>()
  /** `PROVIDER CID` of shards that were rotten and are whole again in the same place, since this was last asked. */
  #restored = new Set<string>()

  constructor(scene: Scene, seed: number) {
    this.#scene = scene
    this.#random = seededRandom(`repair flips ${seed}`)
  }

  /** Flips so many shards of segments in which nothing is rotten. @returns how many it found */
  async flip(count: number): Promise<number> {
    await this.#settle()
    const segments = this.#scene.full.filter(({ name, k }) => k > 1 && !this.#outstanding.has(name))
    let done = 0
    for (const { name, shards } of this.#random.shuffle(segments)) {
      if (done === count) break
      const shard = this.#random.pick(shards)
      const provider = this.#scene.network.providers.find(({ peerId }) => peerId === shard.provider)
      if (provider === undefined) continue
      const file = blockFile(provider, shard.cid)
      const byte = await flipFirstBit(file)
      if (byte === undefined) continue
      this.#outstanding.set(name, { provider: provider.peerId, cid: shard.cid, file, byte })
      done++
    }
    this.flipped += done
    return done
  }

  /** What was rebuilt in its old place since this was last asked. */
  async restored(): Promise<Set<string>> {
    await this.#settle()
    const restored = this.#restored
    this.#restored = new Set()
    return restored
  }

  /** Until all that was flipped is whole again, or gone: what was rebuilt elsewhere is let go of a little later. */
  async settled(): Promise<void> {
    const { healMsMax, signal } = this.#scene
    await waitUntil(
      'every flipped bit was found',
      async () => {
        await this.#settle()
        if (this.#outstanding.size === 0) return true
        throw new Error(`${this.#outstanding.size} were not: ${[...this.#outstanding.keys()].join(', ')}`)
      },
      { msMax: healMsMax, signal }
    )
  }

  async #settle(): Promise<void> {
    for (const [name, { file, byte, provider, cid }] of this.#outstanding) {
      const now = await readFirstByte(file)
      if (now !== undefined && now !== byte) continue
      this.#outstanding.delete(name)
      if (now !== undefined) this.#restored.add(`${provider} ${cid}`)
    }
  }
}

/** @returns the byte as it was; undefined where there is none */
async function flipFirstBit(file: string): Promise<number | undefined> {
  const byte = await readFirstByte(file)
  if (byte === undefined) return undefined
  const handle = await open(file, 'r+')
  try {
    await handle.write(Uint8Array.of(byte ^ 1), 0, 1, 0)
  } finally {
    await handle.close()
  }
  return byte
}

/** Undefined for a file that is empty, or not there (any more). */
async function readFirstByte(file: string): Promise<number | undefined> {
  try {
    const handle = await open(file, 'r')
    try {
      const { bytesRead, buffer } = await handle.read(new Uint8Array(1), 0, 1, 0)
      return bytesRead === 1 ? buffer[0] : undefined
    } finally {
      await handle.close()
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/** Providers of one failure domain, of those that run. */
export function domainOf(scene: Scene, domain: string): Provider[] {
  return scene.network.providers.filter((provider) => provider.domain === domain)
}

/** What rot nobody has come across by reading is found now. */
export async function auditEverything(scene: Scene): Promise<void> {
  await scene.network.post('/v1/audit', {})
}
