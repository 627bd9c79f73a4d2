/** What other processes have used, as Linux counts it. */
import { readFile } from 'node:fs/promises'

/** Ticks of a second in what the kernel shows to programs (`USER_HZ`): the same on every Linux that Node runs on. */
const ticksPerSecond = 100

/** CPU-seconds of a process since its start, all threads, user and system; in steps of 10 ms. @throws when it is gone */
export async function cpuSecondsOf(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'latin1')
  // The second field, the name, may have spaces and parentheses in it: counted from behind it, these are 14 and 15 (proc(5)).
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

export interface ResidentBytes {
  now: number
  /** The most since the process started. */
  peak: number
}

/** @throws when the process is gone */
export async function residentBytesOf(pid: number): Promise<ResidentBytes> {
  const status = await readFile(`/proc/${pid}/status`, 'latin1')
  const field = (name: string): number => {
    const match = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)
    if (match === null) throw new Error(`process ${pid} has no ${name}: it has ended`)
    return Number(match[1]) * 1024
  }
  return { now: field('VmRSS'), peak: field('VmHWM') }
}
