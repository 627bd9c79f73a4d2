import { expect, it } from 'vitest'
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
    expect(asked).toEqual(['slow at 6000']) // and not the one that gets on
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
