/** `DATA/control.json`: where a running provider takes its operator's commands. FORMATS.md, "The operator's channel". */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { HoldfastError } from '../base/errors.ts'

const schema = z.strictObject({
  port: z.number().int().min(1).max(65535),
  token: z.string().min(32).max(128)
})
export type ControlFile = z.infer<typeof schema>

export const controlPath = (dataDir: string): string => join(dataDir, 'control.json')

/** Undefined where there is none: no provider runs there. @throws HoldfastError `DAMAGED` */
export async function readControlFile(dataDir: string): Promise<ControlFile | undefined> {
  const path = controlPath(dataDir)
  try {
    return schema.parse(JSON.parse(await readFile(path, 'utf8')))
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new HoldfastError('DAMAGED', `${path} is not what a provider of this version writes`, { cause })
  }
}
