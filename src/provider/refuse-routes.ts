/** The operator's commands about refusals: `local-server.ts` takes them, `cli/commands/refuse.ts` gives them. */
import { z } from 'zod'
import { HoldfastError } from '../base/errors.ts'
import { parseCid } from '../content/cid.ts'
import { reasonCharsMax } from '../market/refusal.ts'
import type { DenylistWatcher } from './denylist-watch.ts'
import type { LocalRoutes } from './local-server.ts'
import type { ListView, RefusalStore } from './refusal-store.ts'
import type { Brought, RefusedHandOver } from './refused-hand-over.ts'
import type { Refuser } from './refuser.ts'

/** Contents refused by command that are shown, newest first. */
const shownMax = 1000

export interface RefuseAnswer {
  cid: string
  parts: number
  isWhole: boolean
  held: number
}

export interface RefusalsShown {
  commands: Array<{ cid: string; reason: string; at: string; now: boolean; blocks: number; isExpanded: boolean }>
  lists: ListShown[]
  /** Refused blocks that are kept until they have been handed over, or a day has passed. */
  kept: number
  /** What was brought elsewhere since the provider started: nothing of what was refused at once is. */
  brought: Brought
}

export type ListShown = Omit<ListView, 'id' | 'atOnce' | 'readAt'> & { now: boolean; readAt: string | null }

const cidField = z.string().min(1).max(256)
const refuseSchema = z.strictObject({
  cid: cidField,
  reason: z.string().min(1).max(reasonCharsMax).optional(),
  now: z.boolean().optional()
})
const undoSchema = z.strictObject({ cid: cidField })
const listSchema = z.strictObject({ path: z.string().min(1).max(4096), now: z.boolean().optional() })
const unlistSchema = z.strictObject({ path: z.string().min(1).max(4096) })

export interface RefuseRoutesComponents {
  refuser: Refuser
  watcher: DenylistWatcher
  store: RefusalStore
  handOver: Pick<RefusedHandOver, 'brought'>
}

export function refuseRoutes({ refuser, watcher, store, handOver }: RefuseRoutesComponents): LocalRoutes {
  return {
    'GET /refuse': async (): Promise<RefusalsShown> => ({
      commands: store.commands(shownMax).map(({ cid, at, atOnce, ...shown }) => ({
        ...shown,
        cid: cid.toString(),
        at: new Date(at).toISOString(),
        now: atOnce
      })),
      lists: store.lists().map(shownList),
      kept: store.kept,
      brought: handOver.brought
    }),
    'POST /refuse': async (body, signal): Promise<RefuseAnswer> => {
      const { cid, reason, now } = parse(refuseSchema, body)
      const refused = await refuser.refuse(parseCid(cid), { reason, atOnce: now ?? false }, signal)
      return { ...refused, cid: refused.cid.toString() }
    },
    'POST /refuse/undo': async (body) => {
      const cid = parseCid(parse(undoSchema, body).cid)
      if (!refuser.undo(cid)) throw new HoldfastError('MISSING', `${cid} is not refused by command`)
      const ground = store.find(cid)
      return {
        cid: cid.toString(),
        stillRefused: ground === undefined ? null : { list: ground.list, root: ground.root }
      }
    },
    'POST /refuse/list': async (body) => {
      const { path, now } = parse(listSchema, body)
      return shownList(await watcher.add(path, now ?? false))
    },
    'POST /refuse/unlist': async (body) => {
      const { path } = parse(unlistSchema, body)
      if (!(await watcher.remove(path))) throw new HoldfastError('MISSING', `${path} is not a list in force`)
      return { path }
    }
  }
}

const shownList = ({ id: _, atOnce, readAt, ...list }: ListView): ListShown => ({
  ...list,
  now: atOnce,
  readAt: readAt === null ? null : new Date(readAt).toISOString()
})

function parse<T>(schema: z.ZodType<T>, body: unknown): T {
  const { success, data, error } = schema.safeParse(body)
  if (!success) throw new HoldfastError('BAD_INPUT', `not such a command: ${error.issues[0]?.message ?? 'unknown'}`)
  return data
}
