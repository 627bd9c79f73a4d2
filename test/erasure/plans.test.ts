import { expect, it } from 'vitest'
import { createPlanner } from '../../src/erasure/plans.ts'

const code = { k: 3, m: 3 }
const presentBut = (...lost: number[]) => Array.from({ length: 6 }, (_, index) => !lost.includes(index))

it('keeps plans, so that the same loss has the same matrix, and not more of them than it may', () => {
  const planner = createPlanner(2)
  const first = planner.reconstruction(code, presentBut(0), [0])
  const second = planner.reconstruction(code, presentBut(1), [1])
  expect(planner.reconstruction(code, presentBut(0), [0])).toBe(first)
  planner.encoding(code) // the second is now the one that was not used for longest
  expect(planner.size).toBe(2)
  expect(planner.reconstruction(code, presentBut(0), [0])).toBe(first)
  expect(planner.reconstruction(code, presentBut(1), [1])).not.toBe(second)
  for (let lost = 0; lost < 6; lost++) planner.reconstruction(code, presentBut(lost), [lost])
  expect(planner.size).toBe(2)
})

it('restores only what is missing and wanted, once, from k shards', () => {
  const planner = createPlanner()
  const plan = planner.reconstruction(code, presentBut(1, 4), [4, 0, 4])
  expect(plan.outputs).toEqual([4])
  expect(plan.inputs).toEqual([0, 2, 3])
  expect(planner.reconstruction(code, presentBut(), [4, 0]).outputs).toEqual([])
  expect(planner.reconstruction(code, presentBut(0, 1, 2, 3, 4, 5), []).outputs).toEqual([])
})

it('refuses to restore a shard that the code does not have', () => {
  for (const index of [-1, 6, 1.5, Number.NaN]) {
    expect(() => createPlanner().reconstruction(code, presentBut(0), [index])).toThrow(/is wanted/)
  }
})
