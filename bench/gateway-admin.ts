/** What benchmarks ask a gateway's admin API. */
import type { ProviderView, RepairTotals } from '../src/admin/backend.ts'
import { createAdminClient } from '../src/cli/admin-client.ts'

export class GatewayAdmin {
  readonly #origin: () => string
  readonly #signal: AbortSignal

  /** @param origin asked each time: a gateway that starts again may be elsewhere */
  constructor(origin: () => string, signal: AbortSignal) {
    this.#origin = origin
    this.#signal = signal
  }

  async get<T>(path: string): Promise<T> {
    return await createAdminClient(this.#origin(), this.#signal).request<T>('GET', path)
  }

  async post<T>(path: string, body: object): Promise<T> {
    return await createAdminClient(this.#origin(), this.#signal).request<T>('POST', path, body)
  }

  async providerViews(): Promise<ProviderView[]> {
    return (await this.get<{ providers: ProviderView[] }>('/v1/providers')).providers
  }

  async repairTotals(): Promise<RepairTotals> {
    return (await this.get<{ totals: RepairTotals }>('/v1/repairs')).totals
  }

  /** `GET /metrics`, as text. */
  async metrics(): Promise<string> {
    const response = await fetch(`${this.#origin()}/metrics`, { signal: AbortSignal.any([this.#signal]) })
    if (!response.ok) throw new Error(`/metrics answers ${response.status}`)
    return await response.text()
  }

  /** A counter or gauge, summed over its labels; 0 while there is none. */
  async metric(name: string): Promise<number> {
    return metricIn(await this.metrics(), name)
  }
}

/** @param label `how="decoded"`: only what has it; absent: the sum over all labels */
export function metricIn(text: string, name: string, label?: string): number {
  const lines = text.split('\n').filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`))
  return lines
    .filter((line) => label === undefined || line.includes(label))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0)
}
