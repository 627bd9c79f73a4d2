/** The simulated network's client keeps the real one's promises. Virtual time passes while something is asked, and only then. */

import { MiB, minuteMs } from '../../src/base/limits.ts'
import { silentLog } from '../../src/base/log.ts'
import { Machine } from '../../src/sim/machine.ts'
import { SimulatedNetwork } from '../../src/sim/network.ts'
import { seededRandom } from '../../src/sim/seeded-random.ts'
import { simulatedSigner, verifySimulated } from '../../src/sim/signatures.ts'
import { Trace } from '../../src/sim/trace.ts'
import { Timeline, VirtualProcess } from '../../src/sim/virtual-clock.ts'
import type { ProviderClient } from '../../src/transfer/provider-client.ts'
import { providerClientContract } from '../contracts/provider-client.ts'

providerClientContract('the simulated network', async () => {
  const timeline = new Timeline()
  const random = seededRandom(4)
  const machine = new Machine(
    { timeline, random, log: silentLog },
    {
      peerId: 'machine',
      operator: 'operator',
      host: '192.0.2.1',
      domains: ['domain'],
      capacityBytes: 12 * MiB,
      skewMs: minuteMs,
      latencyMs: 10,
      collectEveryMs: minuteMs
    }
  )
  machine.start()
  const network = new SimulatedNetwork({
    timeline,
    random,
    trace: new Trace(timeline),
    machines: new Map([[machine.peerId, machine]]),
    budget: { spend: () => true, spendAll: () => true, renewed: () => {} }
  })
  const process = new VirtualProcess(timeline)
  const clientOf = (owner: string): ProviderClient => {
    const { client } = network.connect(process, owner)
    return {
      putShard: (...args) => timeline.drive(client.putShard(...args)),
      getShard: (...args) => timeline.drive(client.getShard(...args)),
      renewLeases: (...args) => timeline.drive(client.renewLeases(...args)),
      releaseLeases: (...args) => timeline.drive(client.releaseLeases(...args)),
      getOffer: (...args) => timeline.drive(client.getOffer(...args)),
      prove: (...args) => timeline.drive(client.prove(...args)),
      listRefusals: (...args) => timeline.drive(client.listRefusals(...args))
    }
  }
  return {
    client: clientOf('gateway'),
    otherClient: clientOf('other'),
    auditor: simulatedSigner('gateway'),
    verifySignature: verifySimulated,
    now: () => timeline.now,
    provider: { peerId: machine.peerId, dataUrls: [machine.dataUrl], addresses: [machine.address] },
    absent: { peerId: 'nobody', dataUrls: ['https://192.0.2.9:4001'], addresses: [] },
    rot: (cid) => machine.disk.rot(cid),
    refuse: async (cid, reason) => {
      await timeline.drive(machine.refuser.refuse(cid, { reason }, new AbortController().signal))
    },
    cleanUp: async () => machine.crash('killed')
  }
})
