/** Options of repair, for whoever runs a gateway: itself, or as the child of a network. */
import type { Command } from 'commander'
import { dayMs, secondMs } from '../base/limits.ts'
import { optionParser } from './command.ts'
import { parseDuration, parseSize } from './units.ts'

/** Presence is looked at four times in a grace, and not oftener than so. */
const graceMsMin = secondMs / 4
const graceMsMax = 30 * dayMs
const patienceMsMax = 3650 * dayMs

export function addRepairOptions(command: Command): void {
  command
    .option(
      '--offline-grace <duration>',
      'how long a provider may be absent before what it holds is rebuilt, longer where it often is (default: 1h)',
      optionParser((text) => parseDuration(text, graceMsMin, graceMsMax))
    )
    .option(
      '--repair-patience <duration>',
      'how long a shard that is gone may wait for more of its segment to go, which costs little more (default: 90d)',
      optionParser((text) => parseDuration(text, graceMsMin, patienceMsMax))
    )
    .option(
      '--repair-rate <size>',
      'what repair may read and write in a second (default: 64MiB)',
      optionParser((text) => Math.max(1, parseSize(text)))
    )
    .option(
      '--self-host <size>',
      'shards that the gateway may hold itself where no provider takes them (default: none)',
      optionParser(parseSize)
    )
}

/** The same as arguments of `holdfast gateway`. */
export function repairArguments(options: {
  offlineGraceMs?: number | undefined
  repairPatienceMs?: number | undefined
  repairBytesPerSecond?: number | undefined
  selfHostBytes?: number | undefined
}): string[] {
  const { offlineGraceMs, repairPatienceMs, repairBytesPerSecond, selfHostBytes } = options
  return [
    ...(offlineGraceMs === undefined ? [] : ['--offline-grace', `${offlineGraceMs}ms`]),
    ...(repairPatienceMs === undefined ? [] : ['--repair-patience', `${repairPatienceMs}ms`]),
    ...(repairBytesPerSecond === undefined ? [] : ['--repair-rate', String(repairBytesPerSecond)]),
    ...(selfHostBytes === undefined ? [] : ['--self-host', String(selfHostBytes)])
  ]
}
