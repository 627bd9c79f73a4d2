/** What the folders may know of each other, where outside names are kept, and that the documents tell the truth. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Command } from 'commander'
import { describe, expect, it } from 'vitest'
import { errorSpecs } from '../src/base/errors.ts'
import { buildProgram } from '../src/cli/main.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const src = path.join(root, 'src')

/** A part of src (a folder, or a file beside them) and the parts it may import: only such as stand above it. */
const mayImport: Record<string, readonly string[]> = {
  base: [],
  wasm: ['base'],
  erasure: ['base', 'wasm'],
  content: ['base', 'wasm'],
  placement: ['base'],
  market: ['base'],
  custody: ['base', 'content', 'market'],
  net: ['base'],
  discovery: ['base', 'content', 'market', 'net'],
  metadata: ['base', 'content', 'market'],
  transfer: ['base', 'content', 'custody', 'placement', 'market', 'net'],
  provider: ['base', 'wasm', 'content', 'custody', 'market', 'net', 'discovery', 'transfer'],
  object: ['base', 'wasm', 'erasure', 'content', 'custody', 'placement', 'market', 'discovery', 'metadata', 'transfer'],
  repair: [
    'base',
    'erasure',
    'content',
    'custody',
    'placement',
    'market',
    'discovery',
    'metadata',
    'transfer',
    'object'
  ],
  gateway: ['base', 'metadata', 'object'],
  admin: ['base']
}
const core = Object.keys(mayImport)
mayImport.node = core
mayImport['node.ts'] = [...core, 'node']
mayImport['index.ts'] = [...core, 'node.ts']
mayImport.sim = [...core, 'node']
mayImport.cli = [...core, 'node.ts', 'sim']

/** Outside names, and the only parts that import them. Types alone tie nobody down. */
const keptIn: ReadonlyArray<{ name: RegExp; parts: readonly string[] }> = [
  { name: /^(libp2p|@libp2p\/.*|@multiformats\/multiaddr)$/, parts: ['net', 'discovery', 'provider'] },
  { name: /^@helia\//, parts: ['provider'] },
  { name: /^node:https?$/, parts: ['gateway', 'admin', 'provider'] },
  { name: /^undici$/, parts: ['transfer'] },
  { name: /^node:sqlite$/, parts: ['metadata', 'provider', 'cli'] },
  { name: /^pg$/, parts: ['metadata'] },
  { name: /^node:worker_threads$/, parts: ['object'] },
  { name: /^node:child_process$/, parts: ['cli'] },
  { name: /^(@aws-sdk\/.*|commander|cli-progress)$/, parts: ['cli'] },
  { name: /^prom-client$/, parts: ['admin'] }
]

/** Reading time or chance, and waiting: what must be injected, or the simulator could not replay it. */
const nondeterminism =
  /\bDate\.now\(|\bnew Date\(\)|\bMath\.random\(|\bsetTimeout\(|\bsetInterval\(|\bAbortSignal\.timeout\(|\bperformance\.now\(|\brandom(?:Bytes|Int|UUID)\(|\bgetRandomValues\(/
const nondeterminismAllowed: Record<string, string> = {
  'base/system.ts': 'it is where the machine is let in',
  'admin/dashboard.ts': 'the page polls; this runs in a browser',
  'discovery/kad-dht.ts': 'bounds on look-ups of the real DHT',
  'gateway/body.ts': 'clients that stall on a real socket',
  'gateway/server.ts': 'clients that stall on a real socket',
  'net/libp2p.ts': 'bounds on dialling real sockets',
  'provider/data-server.ts': 'gateways that stall on a real socket',
  'sim/main.ts': 'says how long the runs took, beside them'
}

interface SourceFile {
  /** Relative to src, with forward slashes. */
  name: string
  part: string
  text: string
}

const partOf = (name: string): string => name.split('/')[0]!

const sources: SourceFile[] = readdirSync(src, { recursive: true, encoding: 'utf8' })
  .map((name) => name.split(path.sep).join('/'))
  .filter((name) => /\.(ts|js)$/.test(name))
  .map((name) => ({ name, part: partOf(name), text: withoutComments(readFileSync(path.join(src, name), 'utf8')) }))

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '$1')
}

interface Import {
  specifier: string
  isTypeOnly: boolean
}

function importsOf(text: string): Import[] {
  const statements = [...text.matchAll(/\b(import|export)\s+(type\s+)?(?:[\w*{][^'"]*?\sfrom\s*)?'([^']+)'/g)]
  const dynamic = [...text.matchAll(/\bimport\(\s*'([^']+)'\s*\)/g)]
  return [
    ...statements.map((match) => ({ specifier: match[3]!, isTypeOnly: match[2] !== undefined })),
    ...dynamic.map((match) => ({ specifier: match[1]!, isTypeOnly: false }))
  ]
}

/** What breaks the import table, in words. */
function violations(files: readonly SourceFile[]): string[] {
  return files.flatMap(({ name, part, text }) =>
    importsOf(text).flatMap(({ specifier }) => {
      if (!specifier.startsWith('.')) return []
      const target = partOf(path.posix.normalize(path.posix.join(path.posix.dirname(name), specifier)))
      const isAllowed = target === part || mayImport[part]?.includes(target) === true
      return isAllowed ? [] : [`${name} imports ${specifier}: ${part} may not know ${target}`]
    })
  )
}

function strays(files: readonly SourceFile[]): string[] {
  return files.flatMap(({ name, part, text }) =>
    importsOf(text)
      .filter(({ isTypeOnly }) => !isTypeOnly)
      .flatMap(({ specifier }) => {
        const rule = keptIn.find((one) => one.name.test(specifier))
        return rule === undefined || rule.parts.includes(part)
          ? []
          : [`${name} imports ${specifier}, which belongs in ${rule.parts.join(', ')}`]
      })
  )
}

describe('the import table', () => {
  it('names every part, and nothing that is not there', () => {
    expect([...new Set(sources.map(({ part }) => part))].sort()).toEqual(Object.keys(mayImport).sort())
  })

  it('has no circles: a part knows only those above it', () => {
    const order = Object.keys(mayImport)
    for (const [part, allowed] of Object.entries(mayImport)) {
      for (const target of allowed)
        expect([part, target, order.indexOf(target) < order.indexOf(part)]).toEqual([part, target, true])
    }
  })

  it('holds', () => {
    expect(violations(sources)).toEqual([])
  })

  it('would catch a violation, however it is written', () => {
    const planted = [
      "import { x } from '../provider/storage-provider.ts'",
      "import type {\n  X\n} from '../net/network.ts'",
      "export { y } from '../cli/main.ts'",
      "import '../sim/model.ts'",
      "const z = await import('../node.ts')"
    ]
    for (const text of planted)
      expect(violations([{ name: 'gateway/planted.ts', part: 'gateway', text }])).toHaveLength(1)
    expect(
      strays([{ name: 'object/planted.ts', part: 'object', text: "import { createLibp2p } from 'libp2p'" }])
    ).toHaveLength(1)
    expect(nondeterminism.test('const now = Date.now()')).toBe(true)
  })
})

describe('names kept in one place', () => {
  it('packages and builtins', () => {
    expect(strays(sources)).toEqual([])
  })

  it('the environment is read by the command line alone', () => {
    const readers = sources.filter(({ part, text }) => part !== 'cli' && /\bprocess\.env\b/.test(text))
    expect(readers.map(({ name }) => name)).toEqual([])
  })

  it('time and chance come in by one door, or for a reason', () => {
    const users = sources.filter(({ text }) => nondeterminism.test(text)).map(({ name }) => name)
    expect(users.sort()).toEqual(Object.keys(nondeterminismAllowed).sort())
  })
})

describe('errors', () => {
  it('that are declared can happen', () => {
    const elsewhere = sources.filter(({ name }) => name !== 'base/errors.ts').map(({ text }) => text)
    const unused = Object.keys(errorSpecs).filter((code) => !elsewhere.some((text) => text.includes(`'${code}'`)))
    expect(unused).toEqual([])
  })
})

const documents = ['README.md', 'src/ARCHITECTURE.md', 'src/FORMATS.md']
const documentText = (name: string): string => readFileSync(path.join(root, name), 'utf8')

/** As GitHub makes them of headings. */
function anchorsOf(markdown: string): string[] {
  return [...markdown.matchAll(/^#{1,6}\s+(.+)$/gm)].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .trim()
      .replaceAll(' ', '-')
  )
}

describe('the documents', () => {
  it.each(documents)('%s links only to what is there', (name) => {
    const text = documentText(name)
    const broken = [...text.matchAll(/\]\(([^)\s]+)\)/g)]
      .map(([, link]) => link!)
      .filter((link) => !/^[a-z]+:/i.test(link))
      .filter((link) => {
        const [file = '', anchor] = link.split('#', 2)
        const target = file === '' ? path.join(root, name) : path.resolve(root, path.dirname(name), file)
        if (!existsSync(target)) return true
        return anchor !== undefined && !anchorsOf(readFileSync(target, 'utf8')).includes(anchor)
      })
    expect(broken).toEqual([])
  })

  it.each(documents)('%s names only files that are there', (name) => {
    const named = [...documentText(name).matchAll(/`((?:src|test|bench|fixtures)\/[\w./-]*[\w/])`/g)].map(
      ([, file]) => file!
    )
    expect(named.filter((file) => !existsSync(path.join(root, file)))).toEqual([])
  })

  it.each(documents)('%s shows only commands and options that exist', (name) => {
    const program = buildProgram({ launcher: '', env: {}, signal: new AbortController().signal })
    const lines = documentText(name).match(/(?<=^|[`\s])(?:npx )?holdfast (?=[a-z])[^`\n]*/gm) ?? []
    expect(lines.flatMap((line) => wrongUsage(program, line))).toEqual([])
  })
})

/** A line counts as a call of the program when it starts with a command's name, or gives options. */
function wrongUsage(program: Command, line: string): string[] {
  const words = line
    .replace(/^npx /, '')
    .split(/[\s[\]|]+/)
    .slice(1)
  let command = program
  while (words.length > 0) {
    const next = command.commands.find((one) => one.name() === words[0])
    if (next === undefined) break
    command = next
    words.shift()
  }
  const flags = words.filter((word) => /^--[a-z]/.test(word)).map((word) => word.replace(/[=.,;:].*$/, ''))
  if (command === program) return flags.some((flag) => flag !== '--help' && flag !== '--version') ? [line] : []
  const known = [...command.options.map(({ long }) => long), '--help']
  return flags.filter((flag) => !known.includes(flag)).map((flag) => `${line}: no ${flag}`)
}
