/** Who is at fault, and whether trying again helps: what callers decide on, instead of on message text. */
export interface ErrorSpec {
  blame: 'caller' | 'peer' | 'network' | 'self'
  retry: 'never' | 'later' | 'elsewhere'
}

/** Every failure the program declares. A code is stable: scripts and tests match on it. */
export const errorSpecs = {
  // what the caller asked for
  BAD_INPUT: { blame: 'caller', retry: 'never' },
  BAD_CONFIG: { blame: 'caller', retry: 'never' },
  NO_SUCH_BUCKET: { blame: 'caller', retry: 'never' },
  NO_SUCH_KEY: { blame: 'caller', retry: 'never' },
  NO_SUCH_UPLOAD: { blame: 'caller', retry: 'never' },
  BUCKET_EXISTS: { blame: 'caller', retry: 'never' },
  BUCKET_OWNED_BY_YOU: { blame: 'caller', retry: 'never' },
  BUCKET_NOT_EMPTY: { blame: 'caller', retry: 'never' },
  PRECONDITION_FAILED: { blame: 'caller', retry: 'never' },
  INVALID_PART: { blame: 'caller', retry: 'never' },
  INVALID_PART_ORDER: { blame: 'caller', retry: 'never' },
  PART_TOO_SMALL: { blame: 'caller', retry: 'never' },
  BAD_DIGEST: { blame: 'caller', retry: 'later' },
  INCOMPLETE_BODY: { blame: 'caller', retry: 'later' },
  OBJECT_TOO_LARGE: { blame: 'caller', retry: 'never' },
  // the network as a whole
  TOO_FEW_PROVIDERS: { blame: 'network', retry: 'later' },
  NOT_DURABLE: { blame: 'network', retry: 'later' },
  UNREADABLE: { blame: 'network', retry: 'later' },
  // one peer
  OFFLINE: { blame: 'peer', retry: 'elsewhere' },
  TIMEOUT: { blame: 'peer', retry: 'elsewhere' },
  MISSING: { blame: 'peer', retry: 'elsewhere' },
  WRONG: { blame: 'peer', retry: 'elsewhere' },
  REFUSED: { blame: 'peer', retry: 'elsewhere' },
  NO_SPACE: { blame: 'peer', retry: 'elsewhere' },
  PROTOCOL: { blame: 'peer', retry: 'elsewhere' },
  // this process
  OVERLOADED: { blame: 'self', retry: 'later' },
  ABORTED: { blame: 'self', retry: 'never' },
  DAMAGED: { blame: 'self', retry: 'never' },
  INTERNAL: { blame: 'self', retry: 'later' }
} as const satisfies Record<string, ErrorSpec>

export type ErrorCode = keyof typeof errorSpecs

export interface ErrorOptions {
  cause?: unknown
  /** Machine-readable details; never secrets. */
  details?: Record<string, unknown>
}

export class HoldfastError extends Error {
  readonly code: ErrorCode
  readonly details: Record<string, unknown>

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'HoldfastError'
    this.code = code
    this.details = options.details ?? {}
  }

  get spec(): ErrorSpec {
    return errorSpecs[this.code]
  }
}

export function isCode(error: unknown, ...codes: ErrorCode[]): error is HoldfastError {
  return error instanceof HoldfastError && codes.includes(error.code)
}

/** The text of whatever was thrown, for logs. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** Throws `BAD_INPUT` unless the condition holds. */
export function check(condition: unknown, message: string): asserts condition {
  if (!condition) throw new HoldfastError('BAD_INPUT', message)
}
