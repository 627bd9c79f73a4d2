import { expect, it } from 'vitest'
import { Arena } from '../../src/object/arena.ts'
import { FairBudget } from '../../src/object/fair-budget.ts'
import { Timeline, VirtualProcess } from '../../src/sim/virtual-clock.ts'

it('lets nobody who is slow keep others waiting', async () => {
  const timeline = new Timeline()
  const { clock } = new VirtualProcess(timeline)
  const budget = new FairBudget(clock, 100, 2000)
  const asked: string[] = []
  const hold = async (name: string, bytes: number) => {
    const held = await budget.acquire(bytes)
    held.canGiveUp(() => {
      asked.push(`${name} at ${clock.now() - start}`)
      held.release()
    })
    return held
  }
  const start = clock.now()
  const work = async (): Promise<void> => {
    await hold('slow', 60)
    await clock.sleep(1000)
    const busy = await hold('busy', 40)
    await clock.sleep(5000)
    expect(asked).toEqual([]) // nobody waits
    busy.canGiveUp(() => asked.push('busy')) // it has got on
    const third = await budget.acquire(50)
    expect(asked).toEqual(['slow at 6100']) // and not the one that gets on
    third.release()
    busy.release()
    busy.release()
    expect(budget.free).toBe(100)
  }
  await timeline.drive(work())
})

it('asks one after another until those who wait have room', async () => {
  const timeline = new Timeline()
  const { clock } = new VirtualProcess(timeline)
  const budget = new FairBudget(clock, 3, 1000)
  const asked: number[] = []
  const work = async (): Promise<void> => {
    for (const name of [1, 2, 3]) {
      const held = await budget.acquire(1)
      held.canGiveUp(() => {
        asked.push(name)
        held.release()
      })
    }
    const all = await budget.acquire(5) // all that there is
    expect(asked).toEqual([1, 2, 3])
    const waiting = budget.acquire(1)
    all.shrink(2)
    await waiting
    all.release()
    expect(budget.waiting).toBe(0)
  }
  await timeline.drive(work())
})

it('asks holders as well for those who wait elsewhere for what they hold', async () => {
  const timeline = new Timeline()
  const { clock } = new VirtualProcess(timeline)
  const budget = new FairBudget(clock, 30, 1000)
  const arena = new Arena(new ArrayBuffer(30 * 64))
  const work = async (): Promise<void> => {
    const take = async (bytes: number): Promise<() => void> => {
      const hold = await budget.acquire(bytes)
      const slab = await budget.pressedBy(arena.take(bytes * 64))
      const release = (): void => {
        slab.release()
        hold.release()
      }
      hold.canGiveUp(release)
      return release
    }
    const first = await take(8)
    await take(5) // slow
    const third = await take(8)
    await take(5) // slow
    first()
    third()
    // 20 are free, and 12 are not in one piece before somebody slow has given up.
    const fourth = await take(12)
    fourth()
    expect(budget.waiting).toBe(0)
  }
  await timeline.drive(work())
})
