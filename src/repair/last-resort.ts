import type { ProviderDirectory } from '../discovery/directory.ts'
import type { Peers } from '../transfer/peers.ts'

/** The same providers, and as candidates those too that get new shards only where nobody else can take them. */
export function withLastResort(directory: ProviderDirectory): Peers {
  return {
    candidates: () => directory.candidates(true),
    target: (peerId) => directory.target(peerId),
    state: (peerId) => directory.state(peerId),
    domainsOf: (peerId) => directory.domainsOf(peerId),
    lateAfterMs: (peerId) => directory.lateAfterMs(peerId),
    standing: (peerId) => directory.standing(peerId),
    report: (peerId, outcome, elapsedMs) => directory.report(peerId, outcome, elapsedMs)
  }
}
