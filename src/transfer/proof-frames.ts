/**
 * The answer to an audit request as it streams: a frame for each challenge, in order, then one with the provider's signed
 * statement. Byte layout: FORMATS.md, "Proofs".
 */
import { concatBytes } from '../base/bytes.ts'
import { HoldfastError } from '../base/errors.ts'
import {
  type Answer,
  type AnswerKind,
  answerKinds,
  proofBytesMax,
  type Signed,
  signedCodec
} from '../custody/audit-messages.ts'

/** Kind (1) and length (2). */
const headerBytes = 3
const statementKind = 0xff
/** A slice has at least its extent: that of an empty block. */
const proofBytesMin = 8
/** A statement, its signature, and what CBOR puts around them. */
export const statementFrameBytesMax = 2048

export function encodeAnswer({ kind, slice }: Answer): Uint8Array {
  return frameOf(answerKinds.indexOf(kind), slice)
}

export function encodeStatement(statement: Signed): Uint8Array {
  return frameOf(statementKind, signedCodec.encode(statement))
}

function frameOf(kind: number, body: Uint8Array): Uint8Array {
  const frame = new Uint8Array(headerBytes + body.length)
  frame[0] = kind
  frame[1] = body.length >>> 8
  frame[2] = body.length & 0xff
  frame.set(body, headerBytes)
  return frame
}

/**
 * Takes the stream in pieces of any size. What it holds is bounded by the number of challenges, whatever comes; what was
 * read before something that is not in the protocol stays.
 */
export class ProofFrameDecoder {
  readonly #challenges: number
  readonly #answers: Answer[] = []
  #statement: Signed | undefined
  /** Of a frame that has not come whole. */
  #rest: Uint8Array = new Uint8Array(0)
  #isBroken = false

  constructor(challenges: number) {
    this.#challenges = challenges
  }

  /** In the order of the challenges, as many as have come. */
  get answers(): readonly Answer[] {
    return this.#answers
  }

  /** What the provider signed, unchecked; the last frame. */
  get statement(): Signed | undefined {
    return this.#statement
  }

  /** The bytes are the caller's again afterwards. @throws HoldfastError `PROTOCOL`, now and ever after */
  push(chunk: Uint8Array): void {
    if (this.#isBroken) throw notInProtocol('bytes after what is not in the protocol')
    try {
      this.#read(this.#rest.length === 0 ? chunk : concatBytes([this.#rest, chunk]))
    } catch (error) {
      this.#isBroken = true
      this.#rest = new Uint8Array(0)
      throw error
    }
  }

  #read(bytes: Uint8Array): void {
    let at = 0
    while (at < bytes.length) {
      if (this.#statement !== undefined) throw notInProtocol('bytes after the statement')
      const kind = bytes[at]!
      this.#checkKind(kind)
      if (bytes.length - at < headerBytes) break
      const length = bytes[at + 1]! * 256 + bytes[at + 2]!
      checkLength(kind, length)
      const end = at + headerBytes + length
      if (end > bytes.length) break
      this.#take(kind, new Uint8Array(bytes.subarray(at + headerBytes, end)))
      at = end
    }
    this.#rest = new Uint8Array(bytes.subarray(at))
  }

  #checkKind(kind: number): void {
    const isOver = this.#answers.length === this.#challenges
    if (kind === statementKind ? !isOver : isOver || answerKinds[kind] === undefined)
      throw notInProtocol(`a frame of kind ${kind} after ${this.#answers.length} of ${this.#challenges} answers`)
  }

  #take(kind: number, body: Uint8Array): void {
    if (kind === statementKind) this.#statement = signedCodec.decode(body)
    else this.#answers.push({ kind: answerKinds[kind]!, slice: body })
  }
}

function checkLength(kind: number, length: number): void {
  const [least, most] = kind === statementKind ? [1, statementFrameBytesMax] : answerLengths[answerKinds[kind]!]
  if (length < least || length > most) throw notInProtocol(`a frame of kind ${kind} with ${length} bytes`)
}

const answerLengths: Record<AnswerKind, readonly [least: number, most: number]> = {
  proof: [proofBytesMin, proofBytesMax],
  missing: [0, 0],
  rotten: [0, 0],
  refused: [0, 0],
  overloaded: [0, 0]
}

const notInProtocol = (what: string): HoldfastError => new HoldfastError('PROTOCOL', `proofs: ${what}`)
