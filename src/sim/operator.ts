/**
 * What a machine's operator commands: content is refused, and the machine leaves. The parts are the provider's own, made
 * when they are first needed, as most machines need none of them. Their files outlive the process, as leases do.
 *
 * What the provider looks after every second, or every ten, is looked after here only while there is something to look
 * after: a run has months, and hours of looking at nothing would take longer than all the rest.
 */
import { HoldfastError } from '../base/errors.ts'
import { minuteMs, secondMs } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import type { CID } from '../content/cid.ts'
import type { Signer } from '../market/offer.ts'
import { Drain } from '../provider/drain.ts'
import { findBlock } from '../provider/find-block.ts'
import { HandOver } from '../provider/hand-over.ts'
import type { LeaseStore } from '../provider/lease-store.ts'
import { Notices, type NoticesDatabase, noticesInMemory } from '../provider/notices.ts'
import { type RefusalGround, RefusalStore } from '../provider/refusal-store.ts'
import { RefusedHandOver } from '../provider/refused-hand-over.ts'
import { Refuser } from '../provider/refuser.ts'
import type { StorageProvider } from '../provider/storage-provider.ts'
import type { Behaviour } from './machine.ts'
import type { Line } from './network.ts'
import type { SeededRandom } from './seeded-random.ts'
import type { VirtualProcess } from './virtual-clock.ts'

/** While something has just been commanded; later on what is left is a matter of hours. */
const soonMs = secondMs
const lateMs = 5 * minuteMs
const soonForMs = 10 * minuteMs

/** What is on the machine's disk besides blocks and leases. */
export class OperatorFiles {
  #refusals: RefusalStore | undefined
  #notices: NoticesDatabase | undefined
  /** As the provider keeps it; undefined: it does not drain. */
  drain: string | undefined

  get refusals(): RefusalStore {
    this.#refusals ??= new RefusalStore(':memory:')
    return this.#refusals
  }

  get notices(): NoticesDatabase {
    this.#notices ??= noticesInMemory()
    return this.#notices
  }

  get hasRefusals(): boolean {
    return this.#refusals !== undefined
  }

  get hasNotices(): boolean {
    return this.#notices !== undefined
  }

  /** Why a block is refused; undefined: it is not. */
  find(cid: CID): RefusalGround | undefined {
    return this.#refusals?.find(cid)
  }
}

export interface OperatorComponents {
  files: OperatorFiles
  process: VirtualProcess
  storage: StorageProvider
  leases: LeaseStore
  signer: Signer
  /** Absent: it has no network, and what takes one fails. */
  line: Line | undefined
  behaviour: () => Behaviour
  random: SeededRandom
  log: Log
}

export class Operator {
  readonly #components: OperatorComponents
  #notices: Notices | undefined
  #refuser: Refuser | undefined
  #handOver: HandOver | undefined
  #refusedHandOver: RefusedHandOver | undefined
  #drain: Promise<Drain> | undefined
  #isTending = false
  #commandedAt = 0

  constructor(components: OperatorComponents) {
    this.#components = components
  }

  /** Goes on with what the last process left. */
  start(): void {
    const { files, storage } = this.#components
    if (files.hasNotices) this.notices.waiting // it starts to tell
    if (files.hasRefusals) this.#tend()
    if (files.drain === undefined) return
    storage.setDraining(true) // before anything can be put
    void this.#openDrain()
  }

  get refuser(): Refuser {
    const { files, storage, signer, line, process, log } = this.#components
    const { clock } = process
    const owners = async (limit: number): Promise<string[]> => (await storage.owners(limit)).map(({ owner }) => owner)
    this.#refuser ??= new Refuser(
      {
        ...{ store: files.refusals, storage, notices: this.notices, signer, clock, log },
        findBlock: async (cid, signal) => line && (await findBlock({ ...line, owners, clock, log }, cid, signal)),
        pause: async () => {} // time is virtual, and so are its turns
      },
      { handsOver: line !== undefined }
    )
    return this.#refuser
  }

  get notices(): Notices {
    const { files, line, leases, process, random, log } = this.#components
    if (this.#notices === undefined) {
      this.#notices = new Notices(
        {
          network: line?.network ?? noNetwork,
          ...{ leases, clock: process.clock, random, log },
          signedOf: async (cids) => (files.hasRefusals ? await this.refuser.signedOf(cids) : cids.map(() => undefined))
        },
        files.notices
      )
      this.#notices.start()
    }
    return this.#notices
  }

  /** Resolves once it is in force, and settled. */
  async refuse(cid: CID, atOnce: boolean): Promise<void> {
    await this.refuser.refuse(cid, { atOnce }, new AbortController().signal)
    this.#commandedAt = this.#components.process.clock.now()
    this.#tend()
  }

  async beginDrain(): Promise<void> {
    await (await this.#openDrain()).begin()
  }

  async cancelDrain(): Promise<void> {
    await (await this.#openDrain()).cancel()
  }

  /** Whether nothing is left that anybody leases. */
  async isDrained(): Promise<boolean> {
    return (await (await this.#openDrain()).state()).state === 'done'
  }

  #openDrain(): Promise<Drain> {
    this.#drain ??= this.#startDrain()
    return this.#drain
  }

  async #startDrain(): Promise<Drain> {
    const { files, storage, process, random, log } = this.#components
    const write = async (text: string | undefined): Promise<void> => {
      await process.clock.sleep(1 + random.int(12))
      files.drain = text
    }
    const drain = await Drain.open(
      { storage, clock: process.clock, random, log },
      { read: async () => files.drain, write, remove: () => write(undefined) }
    )
    drain.start(this.#hands())
    return drain
  }

  #hands(): HandOver {
    const { line, storage, process, behaviour, log } = this.#components
    this.#handOver ??= new HandOver({
      network: line?.network ?? noNetwork,
      client: {
        putShard: async (...args) => {
          // It says that it has brought what it has not.
          if (behaviour().handOvers === 'unsent') return
          if (line === undefined) throw noLine()
          await line.client.putShard(...args)
        }
      },
      ...{ storage, clock: process.clock, log },
      isRoot: () => false, // nobody announces roots here
      onLost: (cids) => void this.notices.lost(cids)
    })
    return this.#handOver
  }

  #tend(): void {
    if (this.#isTending) return
    this.#isTending = true
    void this.#tendWhileNeeded().finally(() => {
      this.#isTending = false
    })
  }

  async #tendWhileNeeded(): Promise<void> {
    const { files, storage, leases, process, log } = this.#components
    const { clock } = process
    const { signal } = new AbortController() // it ends as `kill -9` ends it
    const store = files.refusals
    const handOver = this.#hands()
    this.#refusedHandOver ??= new RefusedHandOver({
      handOver,
      store,
      leases,
      storage,
      clock,
      log,
      pause: async () => {}
    })
    this.#commandedAt = clock.now()
    while (isUnfinished(store)) {
      await this.refuser.turn(signal)
      await this.#refusedHandOver.turn(signal)
      await clock.sleep(clock.now() - this.#commandedAt < soonForMs ? soonMs : lateMs)
    }
  }
}

const isUnfinished = (store: RefusalStore): boolean =>
  store.kept > 0 || store.unsettled(1).length > 0 || store.unexpanded(Number.MAX_SAFE_INTEGER - 1, 1).length > 0

const noLine = (): HoldfastError => new HoldfastError('OFFLINE', 'the machine has no network')
const noNetwork = { request: () => Promise.reject(noLine()) }
