/** Asks a gateway's admin API. */
import { type ErrorCode, errorSpecs, HoldfastError, messageOf } from '../base/errors.ts'
import { DeniedError } from './exit-codes.ts'

/** An answer with every provider of a large network is a few MiB; a stranger's endless one is not read. */
const answerBytesMax = 64 * 1024 * 1024

export interface AdminClient {
  /** @throws HoldfastError with the code the gateway answered; `OFFLINE` when nothing answers there */
  request: <T>(method: 'GET' | 'POST' | 'DELETE', path: string, body?: object) => Promise<T>
  /**
   * What is at the path, as it comes, however long.
   *
   * @throws HoldfastError likewise; `OFFLINE` also when the gateway breaks off
   */
  download: (path: string) => AsyncIterable<Uint8Array>
}

export function createAdminClient(origin: string, signal: AbortSignal): AdminClient {
  const send = (method: string, path: string, body?: object): Promise<Response> =>
    fetch(`${origin}${path}`, {
      method,
      headers: { 'x-holdfast-admin': '1', ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
      body: body === undefined ? null : JSON.stringify(body),
      redirect: 'error',
      signal: AbortSignal.any([signal]) // of each request: listeners on one that lives long would only be collected with it
    })
  const failure = (cause: unknown, hasBegun = false): unknown => {
    if (signal.aborted) return signal.reason
    if (cause instanceof HoldfastError || cause instanceof DeniedError) return cause
    const words = hasBegun
      ? `the gateway at ${origin} broke off (${reasonOf(cause)}); its log says more`
      : `no gateway answers at ${origin} (${reasonOf(cause)}); is it running?`
    return new HoldfastError('OFFLINE', words, { cause })
  }
  return {
    request: async <T>(method: string, path: string, body?: object): Promise<T> => {
      let response: Response
      let text: string
      try {
        response = await send(method, path, body)
        text = await readText(response)
      } catch (cause) {
        throw failure(cause)
      }
      if (!response.ok) throw failureOf(response.status, text, origin)
      return (text === '' ? undefined : parse(text, origin)) as T
    },

    download: async function* (path) {
      let hasBegun = false
      try {
        const response = await send('GET', path)
        if (!response.ok) throw failureOf(response.status, await readText(response), origin)
        hasBegun = true
        yield* response.body ?? []
      } catch (cause) {
        throw failure(cause, hasBegun)
      }
    }
  }
}

async function readText(response: Response): Promise<string> {
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of response.body ?? []) {
    length += chunk.length
    if (length > answerBytesMax) throw new HoldfastError('PROTOCOL', 'the answer is too long for an admin API')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** `fetch` says "fetch failed"; what happened is in its cause. */
function reasonOf(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined
  const code = (cause as NodeJS.ErrnoException | undefined)?.code
  return code ?? messageOf(cause ?? error)
}

function parse(text: string, origin: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new HoldfastError('PROTOCOL', `what answers at ${origin} is no holdfast admin API`, { cause })
  }
}

function failureOf(status: number, text: string, origin: string): Error {
  const { code, message } = Object(parse(text, origin)) as { code?: unknown; message?: unknown }
  const words = typeof message === 'string' ? message : `${origin} answered with status ${status}`
  if (typeof code === 'string' && Object.hasOwn(errorSpecs, code)) return new HoldfastError(code as ErrorCode, words)
  if (status === 401 || status === 403) return new DeniedError(words)
  if (status === 404) return new HoldfastError('NO_SUCH_KEY', words)
  return new HoldfastError(status >= 500 ? 'INTERNAL' : 'BAD_INPUT', words)
}
