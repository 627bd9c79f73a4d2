/**
 * What goes wrong, drawn from the seed: each run gets a mix of its own, so that rare combinations have their turn. A
 * fault that destroys or denies shards asks the ground truth first whether the code still promises to survive it;
 * faults that only keep them out of reach need not.
 */
import { secondMs } from '../base/limits.ts'
import { CID, codecs } from '../content/cid.ts'
import { isEmptyContent } from '../provider/denylist.ts'
import { gatewayPeerId } from './gateway.ts'
import type { Behaviour, Machine } from './machine.ts'
import type { Cut } from './network.ts'
import type { SeededRandom } from './seeded-random.ts'
import { shortCid } from './trace.ts'
import type { World } from './world.ts'

interface Fault {
  name: string
  weight: number
  /** @returns whether it was done: some need something to be there, or would go too far */
  strike: () => boolean | Promise<boolean>
}

/** Share of machines that leave at once. */
const leaversMax = 0.1
/** Share of machines that may be in trouble before single faults hold back. */
const troubledMax = 0.3

export class Faults {
  readonly #world: World
  readonly #random: SeededRandom
  readonly #faults: Fault[]
  readonly #everyMs: number
  /** Machines in trouble, and how often trouble came to each: who heals it must know that nothing came after. */
  readonly #troubled = new Map<Machine, number>()
  /** Partitions that last: how to heal each. */
  readonly #partitions = new Set<() => void>()
  #isOver = false
  #strikes = 0

  /** @param names of those that strike; default: a mix of all */
  constructor(world: World, random: SeededRandom, names?: readonly string[]) {
    this.#world = world
    this.#random = random
    const all = this.#all()
    // Swarm testing: leaving some kinds out lets the others go further.
    const drawn = all.filter(() => random.chance(0.6))
    const mix = names === undefined ? drawn : all.filter(({ name }) => names.includes(name))
    this.#faults = mix.length > 0 ? mix : all
    this.#everyMs = random.pick([400, 1000, 3000])
  }

  get names(): string[] {
    return this.#faults.map(({ name }) => name)
  }

  async run(): Promise<void> {
    while (!this.#isOver) {
      await this.#world.clock.sleep(this.#random.exponential(this.#everyMs))
      if (this.#isOver) return
      const fault = this.#draw()
      if (await fault.strike()) this.#world.count(`fault ${fault.name}`)
    }
  }

  /** No more faults, and all machines are as they should be. */
  end(): void {
    this.#isOver = true
    for (const heal of this.#partitions) heal()
    for (const machine of this.#world.machines.values()) {
      machine.disk.failPowerAtNextWrite(undefined)
      this.#heal(machine)
    }
    this.#world.truth.allHonest()
  }

  #draw(): Fault {
    const total = this.#faults.reduce((sum, { weight }) => sum + weight, 0)
    let at = this.#random.next() * total
    for (const fault of this.#faults) {
      at -= fault.weight
      if (at < 0) return fault
    }
    return this.#faults.at(-1)!
  }

  #all(): Fault[] {
    const random = this.#random
    const behave = (name: string, weight: number, change: () => Partial<Behaviour>): Fault => ({
      name,
      weight,
      strike: () => this.#misbehave(name, change())
    })
    return [
      { name: 'crash', weight: 3, strike: () => this.#crash([this.#anyMachine()], 'killed', 1, 30) },
      { name: 'power loss', weight: 2, strike: () => this.#crash([this.#anyMachine()], 'vanished', 1, 60) },
      { name: 'domain down', weight: 1, strike: () => this.#crashDomain() },
      { name: 'm holders down', weight: 2, strike: () => this.#crashHolders() },
      { name: 'gateway killed', weight: 2, strike: () => this.#world.killGateway(random.int(4 * secondMs)) },
      { name: 'wiped', weight: 2, strike: () => this.#wipe() },
      { name: 'rot', weight: 3, strike: () => this.#rot() },
      { name: 'disk full', weight: 1, strike: () => this.#fill() },
      { name: 'cut off', weight: 0.3, strike: () => this.#cutOff() },
      behave('partitioned', 1, () => ({ reach: 'refused' })),
      behave('silent', 2, () => ({ reach: 'silent' })),
      behave('lossy', 2, () => ({ lossRate: random.between(0.1, 0.7) })),
      behave('slow', 2, () => ({ slowness: random.between(3, 60) })),
      behave('narrow line', 1, () => ({ bytesPerSecond: random.between(100, 3000) })),
      behave('slow disk', 1, () => ({ diskSlowness: random.between(10, 2000) })),
      { name: 'torn write', weight: 2, strike: () => this.#tear() },
      { name: 'partition', weight: 0.7, strike: () => this.#part() },
      { name: 'one-way partition', weight: 0.7, strike: () => this.#partOneWay() },
      behave('stalling', 2, () => ({ stallMs: random.between(2, 60) * secondMs })),
      behave('lies on get', 2, () => ({ gets: random.pick(['other-bytes', 'missing', 'oversized']) })),
      behave('lies on put', 2, () => ({ puts: 'false-yes' })),
      behave('refuses puts', 1, () => ({ puts: 'refused' })),
      behave('lies on leases', 1, () => ({ leases: random.pick(['held', 'missing', 'garbage']) })),
      behave('bad offers', 0.5, () => ({ offers: 'garbage' })),
      { name: 'gone for good', weight: 0.5, strike: () => this.#retire() },
      { name: 'refuses', weight: 1.5, strike: () => this.#refuse() },
      { name: 'takes it back', weight: 0.5, strike: () => this.#takeBack() },
      { name: 'leaves', weight: 0.7, strike: () => this.#leave() },
      behave('lies on hand-over', 1, () => ({ handOvers: 'unsent' }))
    ]
  }

  #anyMachine(): Machine {
    return this.#random.pick([...this.#world.machines.values()])
  }

  #isTooMuch(more = 1): boolean {
    return this.#troubled.size + more > troubledMax * this.#world.machines.size
  }

  /** In trouble from now on, for so many seconds. */
  #trouble(machine: Machine, secondsMin: number, secondsMax: number): void {
    const strike = ++this.#strikes
    this.#troubled.set(machine, strike)
    void this.#world.clock.sleep(this.#random.between(secondsMin, secondsMax) * secondMs).then(() => {
      if (this.#troubled.get(machine) === strike) this.#heal(machine)
    })
  }

  #heal(machine: Machine): void {
    if (!this.#troubled.delete(machine)) return
    machine.beHonest()
    machine.disk.isFull = false
    if (!machine.isUp && this.#random.chance(0.3)) machine.move()
    machine.start()
    this.#world.trace.note(`${machine.peerId} is well again`)
  }

  #crash(machines: readonly Machine[], how: 'killed' | 'vanished', secondsMin: number, secondsMax: number): boolean {
    if (this.#isTooMuch(machines.length)) return false
    for (const machine of machines) {
      this.#world.trace.note(`fault: ${machine.peerId} ${how}`)
      machine.crash(how)
      this.#trouble(machine, secondsMin, secondsMax)
    }
    return true
  }

  /**
   * The power fails at a machine while it writes a block: it may find part of it afterwards, and nobody counts on it.
   */
  #tear(): boolean {
    const machine = this.#anyMachine()
    if (!machine.isUp) return false
    machine.disk.failPowerAtNextWrite(() => {
      if (this.#isOver || this.#isTooMuch()) return false
      this.#world.trace.note(`fault: ${machine.peerId} loses power while it writes`)
      machine.crash('vanished', true)
      this.#trouble(machine, 1, 30)
      this.#world.count('fault torn write')
      return true
    })
    return false // it counts when it has happened
  }

  /** An operator's machines, or a region's, and everybody else do not reach each other. */
  #part(): boolean {
    const { inside, outside, name } = this.#sides()
    const calls = this.#random.pick(['refused', 'silent'] as const)
    // Or only machines each other, so that the gateway sees nothing of it.
    const everybodyElse = this.#random.chance(0.7) ? new Set([...outside, gatewayPeerId]) : outside
    this.#partition(`${name} parted, ${calls}`, [
      { from: inside, to: everybodyElse, calls },
      { from: everybodyElse, to: inside, calls }
    ])
    return true
  }

  /** Calls get through one way, or get there and their answers do not come back. */
  #partOneWay(): boolean {
    const { inside, outside, name } = this.#sides()
    const calls = this.#random.pick(['refused', 'silent', 'unanswered'] as const)
    const others = new Set([...outside, gatewayPeerId])
    const isInwards = this.#random.chance(0.5)
    const way = isInwards ? { from: others, to: inside } : { from: inside, to: others }
    this.#partition(`${name} parted ${isInwards ? 'inwards' : 'outwards'}, ${calls}`, [{ ...way, calls }])
    return true
  }

  #sides(): { inside: ReadonlySet<string>; outside: ReadonlySet<string>; name: string } {
    const somebody = this.#anyMachine()
    const isRegion = this.#random.chance(0.4)
    const isInside = ({ operator, region }: Machine): boolean =>
      isRegion ? region === somebody.region : operator === somebody.operator
    const machines = [...this.#world.machines.values()]
    const named = (some: readonly Machine[]): Set<string> => new Set(some.map(({ peerId }) => peerId))
    return {
      inside: named(machines.filter(isInside)),
      outside: named(machines.filter((machine) => !isInside(machine))),
      name: isRegion ? `region ${somebody.region}` : somebody.operator
    }
  }

  #partition(what: string, cuts: readonly Cut[]): void {
    this.#world.trace.note(`fault: ${what}`)
    const healing = cuts.map((cut) => this.#world.cut(cut))
    const heal = (): void => {
      if (!this.#partitions.delete(heal)) return
      for (const one of healing) one()
      this.#world.trace.note(`${what}: no more`)
    }
    this.#partitions.add(heal)
    void this.#world.clock.sleep(this.#random.between(3, 30) * secondMs).then(heal)
  }

  #crashDomain(): boolean {
    const domain = this.#random.pick(this.#anyMachine().domains)
    const members = [...this.#world.machines.values()].filter(({ domains }) => domains.includes(domain))
    return this.#crash(members, this.#random.pick(['killed', 'vanished']), 2, 40)
  }

  /** The worst `m` deaths for one object, all at once; and somebody reads it just then. */
  #crashHolders(): boolean {
    const { model, truth, machines, workload } = this.#world
    const objects = model.objects()
    if (objects.length === 0) return false
    const { bucket, key, version } = this.#random.pick(objects)
    const ids = truth.contents.get(version.contentId)?.segmentIds ?? []
    const segment = ids.length === 0 ? undefined : truth.segments.get(this.#random.pick(ids))
    if (segment === undefined || truth.goodShards(segment).length < segment.k + segment.m) return false
    const holders = segment.shards.map(({ provider }) => machines.get(provider!)!)
    const victims = this.#random.shuffle(holders).slice(0, segment.m)
    if (!this.#crash(victims, this.#random.pick(['killed', 'vanished']), 5, 20)) return false
    void workload.get({ bucket, key })
    return true
  }

  #wipe(): boolean {
    const machine = this.#anyMachine()
    const cids = machine.disk.cids()
    if (cids.length === 0 || !this.#world.truth.spendAll(machine.peerId, cids, 'destroyed')) return false
    this.#world.trace.note(`fault: ${machine.peerId} wiped`)
    machine.crash('killed')
    machine.wipe(this.#random.pick(['shards', 'shards and leases']))
    this.#trouble(machine, 0, 10)
    return true
  }

  /** It never comes back; its operator starts another. */
  #retire(): boolean {
    const machine = this.#anyMachine()
    const cids = machine.disk.cids()
    if (machine.isRetired || cids.length === 0) return false
    if (!this.#world.truth.spendAll(machine.peerId, cids, 'destroyed')) return false
    this.#world.trace.note(`fault: ${machine.peerId} gone for good`)
    machine.retire(this.#random.pick(['killed', 'vanished']))
    this.#world.replace(machine)
    return true
  }

  /** Its operator refuses a block, or a content that it has a part of. */
  #refuse(): boolean {
    const machine = this.#anyMachine()
    const cids = machine.disk.cids().filter((cid) => !isEmptyContent(cid))
    const shards = cids.filter(({ code }) => code === codecs.raw) // nodes are refused with what they lead to
    const { truth } = this.#world
    const content = this.#random.chance(0.5) ? this.#contentAt(machine) : undefined
    const named = content?.root ?? shards[this.#random.int(shards.length)]
    if (!machine.isUp || named === undefined) return false
    const parts = content === undefined ? [named] : cids.filter((cid) => content.cids.has(cid.toString()))
    if (!truth.spendAll(machine.peerId, parts, 'refused')) return false
    if (content !== undefined) truth.refusing(machine.peerId, content.cids)
    const atOnce = this.#random.chance(0.4)
    const what = content === undefined ? 'block' : 'root'
    this.#world.trace.note(`fault: ${machine.peerId} refuses ${what} ${shortCid(named)}${atOnce ? ' at once' : ''}`)
    this.#world.count(`refused ${what}${atOnce ? ' at once' : ''}`)
    void machine.commands.refuse(named, atOnce)
    return true
  }

  /** An object of which the machine has something, and all that it is made of. */
  #contentAt(machine: Machine): { root: CID; cids: ReadonlySet<string> } | undefined {
    const { model, truth } = this.#world
    for (const { version } of this.#random.shuffle(model.objects())) {
      const { segmentIds = [], blockIds = [] } = truth.contents.get(version.contentId) ?? {}
      const segments = [...segmentIds, ...blockIds].flatMap((id) => truth.segments.get(id) ?? [])
      const cids = new Set(segments.flatMap(({ shards }) => shards.map(({ cid }) => cid.toString())))
      if (machine.disk.cids().some((cid) => cids.has(cid.toString()))) return { root: CID.parse(version.root), cids }
    }
    return undefined
  }

  /** Its operator takes a refusal back; gateways that know of it remember. */
  #takeBack(): boolean {
    const refusing = [...this.#world.machines.values()].filter(({ isUp, files }) => isUp && files.hasRefusals)
    if (refusing.length === 0) return false
    const machine = this.#random.pick(refusing)
    const commands = machine.files.refusals.commands(100)
    if (commands.length === 0) return false
    const { cid } = this.#random.pick(commands)
    this.#world.trace.note(`fault: ${machine.peerId} refuses ${shortCid(cid)} no more`)
    return machine.refuser.undo(cid)
  }

  /** Its operator has it leave, and in one case of five thinks better of it. */
  #leave(): boolean {
    const machine = this.#anyMachine()
    if (!machine.isUp || machine.isDraining || this.#leavers() >= leaversMax * this.#world.machines.size) return false
    this.#world.trace.note(`fault: ${machine.peerId} leaves`)
    this.#world.drain(machine, this.#random.chance(0.2) ? this.#random.int(20 * secondMs) : undefined)
    return true
  }

  #leavers(): number {
    return [...this.#world.machines.values()].filter(({ isDraining, isRetired }) => isDraining && !isRetired).length
  }

  async #rot(): Promise<boolean> {
    const machine = this.#anyMachine()
    const cids = machine.disk.cids()
    if (cids.length === 0) return false
    const cid = this.#random.pick(cids)
    if (!machine.disk.holds(cid) || !this.#world.truth.spend(machine.peerId, cid, 'destroyed')) return false
    this.#world.trace.note(`fault: a block rots at ${machine.peerId}`)
    await machine.disk.rot(cid)
    return true
  }

  #fill(): boolean {
    const machine = this.#anyMachine()
    if (this.#isTooMuch()) return false
    machine.disk.isFull = true
    this.#world.trace.note(`fault: ${machine.peerId} disk full`)
    this.#trouble(machine, 5, 60)
    return true
  }

  /** The gateway reaches only a few providers for a while. */
  #cutOff(): boolean {
    const reach = this.#random.pick(['refused', 'silent'] as const)
    const left = this.#random.between(0.05, 0.25)
    this.#world.trace.note(`fault: most machines ${reach}`)
    for (const machine of this.#world.machines.values()) {
      if (this.#random.chance(left)) continue
      machine.behave({ reach })
      this.#trouble(machine, 5, 25)
    }
    return true
  }

  #misbehave(name: string, change: Partial<Behaviour>): boolean {
    const machine = this.#anyMachine()
    if (this.#isTooMuch()) return false
    machine.behave(change)
    this.#world.trace.note(`fault: ${machine.peerId} ${name}`)
    this.#trouble(machine, 3, 60)
    return true
  }
}
