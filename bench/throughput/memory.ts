/** How much memory the gateway takes for one large object: it must not grow with the object. */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { GiB } from '../../src/base/limits.ts'
import { formatCode } from '../../src/erasure/erasure-coder.ts'
import { DataSource } from '../data.ts'
import { type Benchmark, collect, figuresOf, megabytesPerSecond, type Sampling } from '../harness.ts'
import { codeInUse, providersDefault } from '../limits.ts'
import { runtimeVersionOf } from './network.ts'
import { getObjects, putObjects, type Work } from './round.ts'
import { clientDescription } from './s3-client.ts'
import { withNetwork } from './with-network.ts'

const units = { gatewayPeak: 'MB', gatewayBefore: 'MB', providerPeak: 'MB', loopDelayP99: 'ms', rate: 'MB/s' } as const
type Sample = Record<keyof typeof units, number>

const bucket = 'bench'

export const memory: Benchmark = {
  name: 'memory',
  title: 'Memory of one large object',
  run: async (context) => {
    const { scale, seed, directory, code, runtimes, progress, signal } = context
    const providers = context.providers ?? providersDefault
    const size = (scale === 'full' ? 5 : 1) * GiB
    const sampling: Sampling = { warmups: 0, samples: scale === 'full' ? 3 : 1 }
    const place = join(directory, 'network')
    const object = { key: 'large', data: new DataSource(seed).object(0, size) }

    /** A network of its own for each direction, so that the peak is of that direction alone. */
    const measure = async (
      what: string,
      work: (init: Parameters<typeof putObjects>[0]) => Promise<Work>
    ): Promise<Sample> => {
      progress(`memory: ${what} of ${size / GiB} GiB, with ${providers} providers`)
      const init = { directory: place, providers, code, runtime: runtimes[0], connections: 1, signal }
      return await withNetwork(init, async ({ network, client }) => {
        if (what === 'upload') await client.createBucket(bucket)
        const { now } = await network.gatewayMemory()
        await network.gatewayLoopDelayMs() // from here on
        const { bytes, seconds } = await work({ network, client, bucket, objects: [object], width: 1 })
        const loopDelayP99 = await network.gatewayLoopDelayMs()
        const { peak } = await network.gatewayMemory()
        return {
          gatewayPeak: peak / 1e6,
          gatewayBefore: now / 1e6,
          loopDelayP99,
          providerPeak: (await network.providerPeakBytes()) / 1e6,
          rate: megabytesPerSecond(bytes, seconds)
        }
      })
    }

    const take = async (): Promise<{ upload: Sample; download: Sample }> => {
      try {
        const upload = await measure('upload', putObjects)
        return { upload, download: await measure('download', getObjects) }
      } finally {
        await rm(place, { recursive: true, force: true })
      }
    }
    const samples = await collect(sampling, take, signal)
    return {
      parameters: {
        providers,
        code: formatCode(codeInUse(context)),
        runtime: runtimeVersionOf(runtimes[0]),
        objectBytes: size,
        ...sampling
      },
      notes: [
        clientDescription,
        'Peaks are the highest resident set since the process started (VmHWM), which includes its start; the network is started anew between upload and download. providerPeak: the largest among the providers.',
        'gatewayBefore: resident set when the network was ready.',
        'loopDelayP99: how late the event loop of the gateway was, 99th percentile of samples 10 ms apart, while client, gateway and providers shared the cores.',
        'One PUT, one GET; the download is compared byte for byte before either counts.'
      ],
      rows: (['upload', 'download'] as const).map((what) => ({
        id: what,
        label: `${what} of one object of ${size / GiB} GiB`,
        figures: figuresOf(
          units,
          samples.map((sample) => sample[what])
        )
      }))
    }
  }
}
