import { describe, expect, it } from 'vitest'
import { HoldfastError } from '../../src/base/errors.ts'
import { silentLog } from '../../src/base/log.ts'
import { systemClock, systemRandom } from '../../src/base/system.ts'
import { type CID, cidOfShard } from '../../src/content/cid.ts'
import type { Standing } from '../../src/custody/score.ts'
import { gather } from '../../src/transfer/gather.ts'
import { LeaseGuard } from '../../src/transfer/lease-guard.ts'
import type { PeerOutcome, Peers } from '../../src/transfer/peers.ts'
import type { ProviderClient } from '../../src/transfer/provider-client.ts'
import { Scatter } from '../../src/transfer/scatter.ts'

type Behaviour = 'good' | 'dead' | 'stalls' | 'full' | 'lies' | 'forgets'

/** A network of named providers, each with a way to behave, that keeps what it was given. */
class Network implements Pick<ProviderClient, 'putShard' | 'getShard'> {
  readonly held = new Map<string, Map<string, Uint8Array>>()
  readonly behaviour = new Map<string, Behaviour>()
  readonly reports: Array<[string, PeerOutcome]> = []
  readonly asked: string[] = []
  /** By peer; whoever is not here is vetted. */
  readonly standings = new Map<string, Standing>()
  readonly lateAfterMs = new Map<string, number>()

  constructor(behaviours: Record<string, Behaviour>) {
    for (const [peer, behaviour] of Object.entries(behaviours)) {
      this.behaviour.set(peer, behaviour)
      this.held.set(peer, new Map())
    }
  }

  readonly peers: Peers = {
    candidates: () =>
      [...this.behaviour.keys()].map((peerId) => ({ peerId, domains: [`op:${peerId}`], freeBytes: 1e9, score: 1 })),
    target: (peerId) => ({ peerId, dataUrls: ['https://127.0.0.1:1'], addresses: [] }),
    state: () => 'online',
    domainsOf: (peerId) => [`op:${peerId}`],
    lateAfterMs: (peerId) => this.lateAfterMs.get(peerId) ?? 30,
    standing: (peerId) => this.standings.get(peerId) ?? 'vetted',
    report: (peerId, outcome) => void this.reports.push([peerId, outcome])
  }

  async #behave(peerId: string, signal?: AbortSignal): Promise<void> {
    this.asked.push(peerId)
    const behaviour = this.behaviour.get(peerId)
    if (behaviour === 'dead') throw new HoldfastError('OFFLINE', 'connection refused')
    if (behaviour === 'full') throw new HoldfastError('NO_SPACE', 'no room')
    if (behaviour === 'stalls')
      await new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason)))
  }

  async putShard(
    { peerId }: { peerId: string },
    cid: CID,
    bytes: Uint8Array,
    { signal }: { signal?: AbortSignal }
  ): Promise<void> {
    await this.#behave(peerId, signal)
    this.held.get(peerId)!.set(cid.toString(), bytes.slice())
  }

  async getShard({ peerId }: { peerId: string }, cid: CID, signal?: AbortSignal): Promise<Uint8Array> {
    await this.#behave(peerId, signal)
    const bytes = this.held.get(peerId)!.get(cid.toString())
    if (bytes === undefined || this.behaviour.get(peerId) === 'forgets') throw new HoldfastError('MISSING', 'not here')
    return this.behaviour.get(peerId) === 'lies' ? bytes.map((b) => b ^ 1) : bytes
  }

  get components() {
    return {
      client: this as unknown as ProviderClient,
      peers: this.peers,
      guard: new LeaseGuard(),
      clock: systemClock,
      random: systemRandom,
      log: silentLog
    }
  }
}

const shardsOf = (n: number) =>
  Array.from({ length: n }, (_, index) => {
    const bytes = new Uint8Array(100).fill(index)
    return { index, bytes, cid: cidOfShard(bytes) }
  })

const standings = (net: Network, letters: string): void => {
  const kinds: Record<string, Standing> = { v: 'vetted', n: 'vetting', c: 'closed', s: 'suspended' }
  for (const [i, letter] of [...letters].entries()) net.standings.set(`p${i}`, kinds[letter]!)
}

const network = (letters: string): Network => {
  const kinds: Record<string, Behaviour> = { o: 'good', x: 'dead', s: 'stalls', f: 'full', l: 'lies', m: 'forgets' }
  return new Network(Object.fromEntries([...letters].map((letter, i) => [`p${i}`, kinds[letter]!])))
}

describe('scatter', () => {
  // o good, x dead, s stalls, f full. The code is 3+3: quorum 5 of 6.
  it.each([
    ['oooooo', 6],
    ['ooooox', 5],
    ['ooooof', 5],
    ['ooooos', 5],
    ['oooooooxx', 6],
    ['ooooooofff', 6],
    ['xxxxoooooo', 6]
  ])('to %s makes the segment durable, with %i shards in the end', async (letters, placed) => {
    const net = network(letters)
    const scatter = new Scatter(net.components, {
      code: { k: 3, m: 3 },
      shards: shardsOf(6),
      quorum: 5,
      putTimeoutMs: 300,
      tailMs: 200
    })
    await scatter.quorum
    expect(scatter.placed.size).toBeGreaterThanOrEqual(5)
    await scatter.settled
    expect(scatter.placed.size).toBe(placed)
    const providers = [...scatter.placed.values()].map(({ provider }) => provider)
    expect(new Set(providers).size).toBe(providers.length)
    for (const [index, { provider }] of scatter.placed) {
      expect(net.held.get(provider)!.get(shardsOf(6)[index]!.cid.toString())).toEqual(shardsOf(6)[index]!.bytes)
    }
  })

  it.each(['ooooxx', 'ooooff', 'ooooss', 'xxxxxx', 'oooo'])(
    'to %s is refused as not durable, with what each provider did',
    async (letters) => {
      const scatter = new Scatter(network(letters).components, {
        code: { k: 3, m: 3 },
        shards: shardsOf(6),
        quorum: 5,
        putTimeoutMs: 300
      })
      await expect(scatter.quorum).rejects.toMatchObject({ code: 'NOT_DURABLE' })
      await scatter.settled
      const outcomes = { x: 'offline', f: 'full', s: 'timeout' } as Record<string, PeerOutcome>
      for (const [i, letter] of [...letters].entries()) {
        if (outcomes[letter] !== undefined) expect(scatter.failed.get(`p${i}`)).toBe(outcomes[letter])
      }
    }
  )

  it('sends a late shard to a spare as well, and gives the loser back', async () => {
    const net = network('ooooooos')
    // Whatever the draw, some run uses the stalling one: all six must be placed without it.
    for (let hedged = false; !hedged; ) {
      const scatter = new Scatter(net.components, {
        code: { k: 3, m: 3 },
        shards: shardsOf(6),
        quorum: 6,
        putTimeoutMs: 3000
      })
      await scatter.settled
      expect(scatter.placed.size).toBe(6)
      hedged = net.asked.splice(0).includes('p7')
      expect(scatter.strays().map(({ provider }) => provider)).toEqual(hedged ? ['p7'] : [])
    }
  })

  it('stops when told, and says what it had placed', async () => {
    const stop = new AbortController()
    const scatter = new Scatter(network('ooosss').components, {
      code: { k: 3, m: 3 },
      shards: shardsOf(6),
      quorum: 6,
      signal: stop.signal
    })
    while (scatter.placed.size < 3) await systemClock.sleep(1)
    stop.abort(new Error('enough'))
    await expect(scatter.quorum).rejects.toThrow('enough')
    await scatter.settled
    expect([...scatter.placed.values()].map(({ provider }) => provider).sort()).toEqual(['p0', 'p1', 'p2'])
  })
})

describe('gather', () => {
  const stored = async (letters: string) => {
    const net = network(letters.replace(/./g, 'o'))
    const shards = shardsOf(letters.length)
    for (const { index, cid, bytes } of shards) await net.putShard({ peerId: `p${index}` }, cid, bytes, {})
    net.asked.length = 0
    const kinds: Record<string, Behaviour> = { o: 'good', x: 'dead', s: 'stalls', l: 'lies', m: 'forgets' }
    for (const [i, letter] of [...letters].entries()) net.behaviour.set(`p${i}`, kinds[letter]!)
    const request = {
      code: { k: 3, m: 3 },
      shards: shards.map(({ index, cid }) => ({ index, cid, bytes: 100, provider: `p${index}`, state: 'healthy' })),
      getTimeoutMs: 400
    }
    return { net, request, shards }
  }

  it('asks for what is wanted and nothing else while all is well', async () => {
    const { net, request, shards } = await stored('oooooo')
    const { shards: got, complete, requestedBytes } = await gather(net.components, { ...request, wanted: [1, 2] })
    expect([...net.asked].sort()).toEqual(['p1', 'p2'])
    expect([complete, requestedBytes]).toEqual([true, 200])
    expect(got.get(1)).toEqual(shards[1]!.bytes)
  })

  // o good, x dead, m has lost it, l lies, s stalls
  it.each([
    ['xoooxx', { p0: 'offline' }],
    ['lllooo', { p0: 'wrong', p1: 'wrong', p2: 'wrong' }],
    ['mxlooo', { p0: 'missing', p1: 'offline', p2: 'wrong' }],
    ['sooooo', {}],
    ['sssooo', {}]
  ])('from %s still gets k shards, and tells the failures apart', async (letters, told) => {
    const { net, request, shards } = await stored(letters)
    const seen: Record<string, PeerOutcome> = {}
    const { shards: got, requestedBytes } = await gather(net.components, {
      ...request,
      wanted: [0, 1, 2],
      observe: (_shard, provider, outcome) => {
        if (outcome !== 'ok') seen[provider] = outcome
      }
    })
    expect(got.size).toBeGreaterThanOrEqual(3)
    for (const [index, bytes] of got) expect(bytes).toEqual(shards[index]!.bytes)
    expect(seen).toMatchObject(told)
    // In vain or not, but not of who has nothing to send.
    const sent = net.asked.filter((peer) => !['dead', 'forgets'].includes(net.behaviour.get(peer)!))
    expect(requestedBytes).toBe(100 * sent.length)
  })

  it.each(['xxxxoo', 'llllll', 'mmmmoo', 'ssssoo'])('from %s fails, and never with wrong bytes', async (letters) => {
    const { net, request } = await stored(letters)
    await expect(gather(net.components, { ...request, wanted: [0, 1, 2] })).rejects.toMatchObject({
      code: 'UNREADABLE'
    })
  })

  // v vetted, n in vetting, c closed, s suspended: who is asked for data shards 0 to 2, and not found wanting.
  it.each([
    ['vvvvvv', [0, 1, 2]],
    ['nnnvvv', [0, 1, 2]],
    ['cvvvvv', [0, 1, 2]],
    ['svvvvv', [1, 2, 3]],
    ['svvcvv', [1, 2, 4]],
    ['ssvcvs', [2, 3, 4]],
    ['svvsss', [0, 1, 2]],
    ['ssssss', [0, 1, 2]]
  ])('of a whole segment at %s asks %j', async (letters, asked) => {
    const { net, request, shards } = await stored('oooooo')
    standings(net, letters)
    for (const i of [0, 1, 2, 3, 4, 5]) net.lateAfterMs.set(`p${i}`, letters[i] === 's' ? 500 : 1000)
    const { shards: got } = await gather(net.components, { ...request, wanted: [0, 1, 2] })
    expect([...net.asked].sort()).toEqual(asked.map((i) => `p${i}`))
    for (const [index, bytes] of got) expect(bytes).toEqual(shards[index]!.bytes)
  })

  it('of one shard goes to a suspended provider all the same, rather than fetch several others', async () => {
    const { net, request } = await stored('oooooo')
    standings(net, 'svvvvv')
    const { complete } = await gather(net.components, { ...request, wanted: [0] })
    expect([complete, net.asked]).toEqual([true, ['p0']])
  })

  it('turns to the closed and the suspended after others, quick as they are', async () => {
    const { net, request } = await stored('xxxxoo')
    standings(net, 'vvvvsc')
    for (const [peer, ms] of Object.entries({ p3: 900, p4: 100, p5: 200 })) net.lateAfterMs.set(peer, ms)
    await expect(gather(net.components, { ...request, wanted: [0, 1, 2] })).rejects.toMatchObject({
      code: 'UNREADABLE'
    })
    expect(net.asked.slice(3)).toEqual(['p3', 'p5', 'p4'])
  })

  it('has the shards at suspended providers where no others are left', async () => {
    const { net, request } = await stored('xxxooo')
    standings(net, 'vvvsss')
    const { shards: got } = await gather(net.components, { ...request, wanted: [0, 1, 2] })
    expect([...got.keys()].sort()).toEqual([3, 4, 5])
  })

  it('can be told to stop', async () => {
    const { net, request } = await stored('ssssss')
    const stop = new AbortController()
    const reading = gather(net.components, { ...request, wanted: [0], signal: stop.signal })
    stop.abort(new Error('the client went away'))
    await expect(reading).rejects.toThrow('the client went away')
  })
})
