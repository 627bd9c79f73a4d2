/** What a provider may try on auditors. The lies go through its own data plane, so that they come as any answer does. */
import { answerStatementCodec, type Signed, signedCodec, toSign } from '../../src/custody/audit-messages.ts'
import { generateIdentity } from '../../src/net/identity.ts'
import type { ProofService } from '../../src/provider/proof-service.ts'
import { encodeStatement } from '../../src/transfer/proof-frames.ts'

/**
 * `replay`: gives the first answer that it ever gave again, to whatever is asked; `foreign`: signs with another peer's key, in
 * that peer's name; `unsigned`: gives no statement; `stall`: stops after the first answers and keeps the connection; `cut`: ends the answer
 * there; `endless`: goes on with proofs for ever; `junk`: sends what is not in the protocol after the first answers.
 */
export const auditLies = ['replay', 'foreign', 'unsigned', 'stall', 'cut', 'endless', 'junk'] as const
export type AuditLie = (typeof auditLies)[number]

/** Makes an honest service lie as `current` says, each time that it is asked. Another word than an `AuditLie` is no lie. */
export function lieInAudits(service: ProofService, current: () => string): void {
  const honest = service.answer.bind(service)
  const tape: Uint8Array[] = []
  service.answer = async function* (received, signal) {
    const frames = honest(received, signal)
    if (current() === 'replay' && tape.length > 0) {
      yield* tape
    } else if (current() === 'foreign' || current() === 'unsigned') {
      const all = await collect(frames)
      yield* all.slice(0, -1)
      if (current() === 'foreign') yield await foreignStatement(all.at(-1)!)
    } else if (current() === 'endless') {
      for await (const piece of frames) for (;;) yield piece
    } else if (current() === 'stall' || current() === 'cut' || current() === 'junk') {
      yield (await frames.next()).value as Uint8Array
      if (current() === 'junk') yield new Uint8Array(100).fill(0x77)
      if (current() === 'stall') await gone(signal)
    } else {
      const isFirst = tape.length === 0
      for await (const piece of frames) {
        if (isFirst) tape.push(piece)
        yield piece
      }
    }
  }
}

async function collect(frames: AsyncIterable<Uint8Array>): Promise<Uint8Array[]> {
  const all: Uint8Array[] = []
  for await (const piece of frames) all.push(piece)
  return all
}

const headerBytes = 3

/** The honest statement, but another peer's. */
async function foreignStatement(frame: Uint8Array): Promise<Uint8Array> {
  const other = await generateIdentity()
  const honest: Signed = signedCodec.decode(frame.subarray(headerBytes))
  const bytes = answerStatementCodec.encode({ ...answerStatementCodec.decode(honest.bytes), provider: other.peerId })
  return encodeStatement({ bytes, signature: await other.sign(toSign('statement', bytes)) })
}

async function gone(signal: AbortSignal | undefined): Promise<void> {
  await new Promise<void>((resolve) => {
    if (signal?.aborted === true) resolve()
    signal?.addEventListener('abort', () => resolve(), { once: true })
  })
}
