/** A process that commits objects, names on stdout each one that was acknowledged, and goes on until it is killed. */
import { writeSync } from 'node:fs'
import { openSqliteIndex } from '../../src/metadata/sqlite.ts'
import { aBlock, anObject, aSegment } from '../support/records.ts'

const [, , path, round] = process.argv
const index = await openSqliteIndex(path!)

async function lane(name: string): Promise<never> {
  for (let count = 0; ; count++) {
    const key = `${round}/${name}/${count}`
    await index.commitObject(anObject({ key, size: 100 }), { segments: [aSegment()], blocks: [aBlock()] })
    writeSync(1, `${key}\n`)
  }
}

await Promise.all(['a', 'b', 'c', 'd'].map(lane))
