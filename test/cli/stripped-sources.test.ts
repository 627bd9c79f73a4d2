import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, it } from 'vitest'

const module = fileURLToPath(new URL('../../src/cli/stripped-sources.js', import.meta.url))
const directory = mkdtempSync(path.join(tmpdir(), 'holdfast-stripped-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const source = path.join(directory, 'source.ts')

function run(cache: string, text: string): string {
  writeFileSync(source, text)
  const program = `
    import { keepStrippedSources } from '${module}'
    keepStrippedSources('${cache}')
    await import('${source}')`
  const args = ['--no-warnings', '--input-type=module', '-e', program]
  return execFileSync(process.execPath, args, { encoding: 'utf8' }).trim()
}

it('runs a source the second time as the first, and never an older one', () => {
  const cache = path.join(directory, 'a', 'cache')
  const one = 'const said: string = "one"; console.log(said)'
  for (let i = 0; i < 2; i++) expect(run(cache, one)).toBe('one')
  expect(readdirSync(cache)).toHaveLength(1)
  expect(run(cache, one.replace('"one"', '"two"'))).toBe('two')
  expect(run(cache, one)).toBe('one')
  expect(readdirSync(cache)).toHaveLength(2)
})

it('does without where nothing can be written', () => {
  writeFileSync(path.join(directory, 'file'), '')
  expect(run(path.join(directory, 'file', 'cache'), 'console.log(1 as number)')).toBe('1')
})
