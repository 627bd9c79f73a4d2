/** Commands a provider that runs on this machine, through the channel that its directory names. */
import { type ErrorCode, errorSpecs, HoldfastError } from '../base/errors.ts'

const answerBytesMax = 64 * 1024 * 1024
const lineCharsMax = 1024 * 1024

export interface LocalProvider {
  /** @throws HoldfastError with the code the provider answered; `OFFLINE` when none runs there */
  request: <T>(method: 'GET' | 'POST', path: string, body?: object) => Promise<T>
  /** The items of an answer that is streamed, as they come. @throws HoldfastError likewise */
  stream: <T>(method: 'GET' | 'POST', path: string, body?: object) => AsyncGenerator<T>
}

/** @throws HoldfastError `OFFLINE` where no provider runs in the directory */
export async function localProvider(dataDir: string, signal: AbortSignal): Promise<LocalProvider> {
  const { readControlFile } = await import('../provider/control-file.ts') // zod is half of a start's time
  const control = await readControlFile(dataDir)
  if (control === undefined) throw notRunning(dataDir)
  const { port, token } = control

  const send = async (method: string, path: string, body?: object): Promise<Response> => {
    let response: Response
    try {
      response = await fetch(`http://127.0.0.1:${port}${path}`, {
        method,
        headers: { authorization: `Bearer ${token}` },
        body: body === undefined ? null : JSON.stringify(body),
        redirect: 'error',
        signal
      })
    } catch (cause) {
      signal.throwIfAborted()
      // The file outlived a provider that was killed, and nobody has its port by now.
      throw notRunning(dataDir, cause)
    }
    if (response.ok) return response
    const { code, message } = asFailure(await readText(response, signal))
    // Somebody else has the port by now, a provider or not: the token was that of a start that is over.
    if (code === 'DENIED' || code === undefined) throw notRunning(dataDir)
    throw failureOf(code, message)
  }
  return {
    request: async <T>(method: string, path: string, body?: object): Promise<T> =>
      parse(await readText(await send(method, path, body), signal)) as T,

    stream: async function* <T>(method: string, path: string, body?: object): AsyncGenerator<T> {
      const response = await send(method, path, body)
      for await (const line of linesOf(response, signal)) {
        const { value, error } = Object(parse(line)) as { value?: T; error?: { code: unknown; message: unknown } }
        if (error !== undefined) throw failureOf(error.code, error.message)
        yield value as T
      }
    }
  }
}

const notRunning = (dataDir: string, cause?: unknown): HoldfastError =>
  new HoldfastError(
    'OFFLINE',
    `no provider is running in ${dataDir}. Start it with "holdfast provider --data ${dataDir}", ` +
      'or name the directory of one that runs with --data',
    { cause }
  )

const brokeOff = (cause: unknown): HoldfastError =>
  new HoldfastError('OFFLINE', 'the provider broke off; its log says more', { cause })

async function* chunksOf(response: Response, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  try {
    yield* response.body ?? []
  } catch (cause) {
    signal.throwIfAborted()
    throw brokeOff(cause)
  }
}

async function readText(response: Response, signal: AbortSignal): Promise<string> {
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of chunksOf(response, signal)) {
    length += chunk.length
    if (length > answerBytesMax) throw new HoldfastError('PROTOCOL', 'the answer is too long for a provider')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** Lines that are not empty: those only say that more will come. */
async function* linesOf(response: Response, signal: AbortSignal): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let begun = ''
  for await (const chunk of chunksOf(response, signal)) {
    const lines = (begun + decoder.decode(chunk, { stream: true })).split('\n')
    begun = lines.pop()!
    if (begun.length > lineCharsMax) throw new HoldfastError('PROTOCOL', 'the answer is too long for a provider')
    yield* lines.filter((line) => line !== '')
  }
  if (begun !== '') throw brokeOff(undefined)
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new HoldfastError('PROTOCOL', 'what answers is no provider of this version', { cause })
  }
}

function asFailure(text: string): { code?: unknown; message?: unknown } {
  try {
    return Object(JSON.parse(text))
  } catch {
    return {} // not ours
  }
}

function failureOf(code: unknown, message: unknown): HoldfastError {
  const known = typeof code === 'string' && Object.hasOwn(errorSpecs, code) ? (code as ErrorCode) : 'INTERNAL'
  return new HoldfastError(known, typeof message === 'string' ? message : 'the provider failed without a word')
}
