/** The same network on several Node versions, turn by turn: which to pin. The client runs on the Node of this run throughout. */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB } from '../../src/base/limits.ts'
import { formatCode } from '../../src/erasure/erasure-coder.ts'
import { DataSource } from '../data.ts'
import { type Benchmark, figuresOf } from '../harness.ts'
import { codeInUse, providersDefault } from '../limits.ts'
import { runtimeVersionOf } from './network.ts'
import { bulkFigures, bulkPutFigures, bulkPutUnits, bulkUnits, type Round, runRound } from './round.ts'
import { clientDescription } from './s3-client.ts'
import { withNetwork } from './with-network.ts'

const objectBytes = 64 * MiB
const width = 4
const bucket = 'bench'

export const runtimes: Benchmark = {
  name: 'runtimes',
  title: 'Node versions side by side',
  run: async (context) => {
    const { scale, seed, directory, code, progress, signal } = context
    const providers = context.providers ?? providersDefault
    const turns = scale === 'full' ? 3 : 1
    const objects = scale === 'full' ? 8 : 2
    const data = new DataSource(seed)
    const tested = context.runtimes.map((path) => ({ path, version: runtimeVersionOf(path), rounds: [] as Round[] }))

    const round = async (path: string): Promise<Round> => {
      const place = join(directory, 'network')
      const init = { directory: place, providers, code, runtime: path, connections: width, signal }
      try {
        return await withNetwork(init, async ({ network, client }) => {
          await client.createBucket(bucket)
          const named = Array.from({ length: 2 * objects }, (_, i) => ({
            key: String(i),
            data: data.object(i, objectBytes)
          }))
          const common = { network, client, bucket, width }
          await runRound({ ...common, objects: named.slice(objects) }) // the warm-up
          return await runRound({ ...common, objects: named.slice(0, objects) })
        })
      } finally {
        await rm(place, { recursive: true, force: true })
      }
    }

    for (let turn = 0; turn < turns; turn++) {
      // Each turn begins with another, so that nobody always has the machine at its coldest.
      const order = tested.map((_, i) => tested[(turn + i) % tested.length]!)
      for (const { path, version, rounds } of order) {
        progress(`runtimes: turn ${turn + 1} of ${turns}, Node ${version}`)
        rounds.push(await round(path))
      }
    }
    return {
      parameters: { providers, code: formatCode(codeInUse(context)), objectBytes, objects, width, turns },
      notes: [
        clientDescription,
        'Gateway and providers run on the Node named; each turn starts a new network for each, and warms it up with as much as is measured.'
      ],
      rows: tested.flatMap(({ version, rounds }) => [
        {
          id: `put-${version}`,
          label: `PUT 64 MiB, ${width} at once, Node ${version}`,
          figures: figuresOf(
            bulkPutUnits,
            rounds.map(({ put }) => bulkPutFigures(put))
          )
        },
        {
          id: `get-${version}`,
          label: `GET 64 MiB, ${width} at once, Node ${version}`,
          figures: figuresOf(
            bulkUnits,
            rounds.map(({ get }) => bulkFigures(get))
          )
        }
      ])
    }
  }
}
