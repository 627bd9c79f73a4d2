/** The page's own script, run on as much of a document as it uses. */
import { setImmediate as turn } from 'node:timers/promises'
import { createContext, Script } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { dashboardHtml } from '../../src/admin/dashboard.ts'

class Element {
  readonly name: string
  readonly children: Array<Element | string> = []
  readonly style: Record<string, string> = {}
  readonly attributes: Record<string, string> = {}
  readonly listeners: Record<string, (event: object) => void> = {}
  className = ''
  title = ''
  value = ''
  hidden = false

  constructor(name: string) {
    this.name = name
  }

  get textContent(): string {
    return this.children.map((child) => (typeof child === 'string' ? child : child.textContent)).join('')
  }
  set textContent(text: string) {
    this.children.splice(0, this.children.length, text)
  }
  append(...added: Array<Element | string>): void {
    this.children.push(...added)
  }
  replaceChildren(...added: Array<Element | string>): void {
    this.children.splice(0, this.children.length, ...added)
  }
  setAttribute(name: string, value: string): void {
    this.attributes[name] = value
  }
  addEventListener(name: string, listener: (event: object) => void): void {
    this.listeners[name] = listener
  }
}

const status = {
  ready: false,
  reasons: ['2 independent providers are online'],
  endpoint: 'http://127.0.0.1:9000',
  version: '0.1.0',
  providers: { online: 1, offline: 1, contained: 0, unknown: 0 },
  freeBytes: 400,
  capacityBytes: 1000,
  objects: 1234,
  objectBytes: 5e9,
  buckets: 1,
  incompleteSegments: 2,
  segments: 9,
  shards: 27,
  custody: { audits: 1200, contained: 3, ownOutage: false, standings: {}, oldestProofAt: null },
  codes: { STANDARD: '1+2', REDUCED_REDUNDANCY: null },
  kernels: { erasure: 'WASM, SIMD', blake3: 'native' }
}

const provider = {
  peerId: '12D3KooWAbcdefgh',
  state: 'online',
  domain: '<img src=x onerror=alert(1)>',
  capacityBytes: 1000,
  freeBytes: 400,
  accepting: true,
  shards: 5,
  latencyMs: 12.4,
  outcomes: { ok: 5, timeout: 2 },
  score: { weight: 0.876, standing: 'closed', custody: 0.94, availability: 1, proofs: 1234, why: 'it lost three' }
}

const audit = {
  askedAt: '2026-01-31T12:34:56.789Z',
  tookMs: 12.4,
  provider: '12D3KooWAbcdefgh',
  challenges: 3,
  outcomes: { ok: 2, missing: 1, wrong: 0 },
  countersigned: false
}

const health = {
  cid: 'bafyroot',
  size: 10,
  segments: [
    {
      code: '1+2',
      healthy: 2,
      margin: 1,
      shards: [
        { cid: 'c1', provider: 'p', state: 'healthy', lastProof: null },
        { cid: 'c2', provider: 'q', state: 'offline', lastProof: null }
      ]
    }
  ],
  blocks: []
}

function openPage(answers: Record<string, unknown>) {
  const script = /<script>([\s\S]*)<\/script>/.exec(dashboardHtml)![1]!
  const elements = new Map<string, Element>()
  for (const [, id] of dashboardHtml.matchAll(/ id="([^"]+)"/g)) elements.set(id!, new Element(id!))
  const asked: string[] = []
  const polls: Array<() => void> = []
  const page = {
    document: {
      hidden: false,
      getElementById: (id: string) => elements.get(id),
      createElement: (name: string) => new Element(name)
    },
    fetch: async (url: string) => {
      asked.push(url)
      if (!(url in answers)) throw new TypeError('network error')
      return { ok: true, status: 200, json: async () => structuredClone(answers[url]) }
    },
    setTimeout: (poll: () => void) => void polls.push(poll)
  }
  new Script(script).runInContext(createContext(page))
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 5; i++) await turn()
  }
  return { elements, asked, polls, settle, text: (id: string) => elements.get(id)!.textContent }
}

describe('the dashboard', () => {
  it('shows the state of the network, and what others named themselves as text', async () => {
    const page = openPage({
      '/v1/status': status,
      '/v1/providers': {
        providers: [provider, { ...provider, state: 'offline', latencyMs: null, capacityBytes: 0, score: null }]
      },
      '/v1/audits?limit=12': { items: [audit], isTruncated: true }
    })
    await page.settle()
    expect(page.text('state')).toBe('not ready')
    expect(page.text('reasons')).toBe('2 independent providers are online')
    expect(page.text('online')).toBe('1 of 2')
    expect(page.text('objects')).toBe('1,234')
    expect(page.text('codes')).toContain('REDUCED_REDUNDANCY too few providers')
    const rows = page.elements.get('providers')!.children as Element[]
    expect(rows).toHaveLength(2)
    expect(rows[0]!.textContent).toContain('offline') // those that need a look come first
    expect(rows[1]!.textContent).toContain('<img src=x onerror=alert(1)>')
    expect(rows[1]!.textContent).toContain('2 timeout')
    expect(page.elements.get('lost')!.hidden).toBe(true)
    expect(rows[0]!.textContent).toContain('not audited')
    const standing = rows[1]!.children[3] as Element
    expect([standing.textContent, standing.title.split('\n')]).toEqual([
      'closed',
      ['it lost three', 'custody 0.940, availability 1.000, 1,234 proofs']
    ])
    expect((rows[1]!.children[4] as Element).textContent).toBe('0.88')
    expect([page.text('audits'), page.text('custody')]).toEqual(['1,200', '3 challenges to be put again'])
    const recent = (page.elements.get('recent')!.children as Element[]).map((row) => row.textContent)
    expect(recent).toEqual(['2026-01-31 12:34:56 UTC\u2026Abcdefgh32 ok 1 missing 12 msby the auditor alone'])
    expect(page.elements.get('unaudited')!.hidden).toBe(true)
  })

  it('has as many cells in a row as headings', async () => {
    const page = openPage({
      '/v1/status': status,
      '/v1/providers': { providers: [provider] },
      '/v1/audits?limit=12': { items: [audit], isTruncated: false }
    })
    await page.settle()
    const tables = dashboardHtml.split('<thead>').slice(1)
    for (const [i, id] of ['providers', 'recent'].entries()) {
      const headings = tables[i]!.split('</thead>')[0]!.match(/<th /g)!.length
      expect([id, (page.elements.get(id)!.children[0] as Element).children.length]).toEqual([id, headings])
    }
  })

  it('says that the gateway is gone, and goes on asking', async () => {
    const answers: Record<string, unknown> = {}
    const page = openPage(answers)
    await page.settle()
    expect(page.elements.get('lost')!.hidden).toBe(false)
    Object.assign(answers, {
      '/v1/status': { ...status, ready: true, reasons: [] },
      '/v1/providers': { providers: [] },
      '/v1/audits?limit=12': { items: [], isTruncated: false }
    })
    page.polls.shift()!()
    await page.settle()
    expect(page.elements.get('lost')!.hidden).toBe(true)
    expect(page.text('state')).toBe('ready')
    expect(page.elements.get('none')!.hidden).toBe(false)
    expect(page.elements.get('unaudited')!.hidden).toBe(false)
  })

  it('looks objects up, whatever their keys', async () => {
    const page = openPage({ '/v1/objects/photos/a%2Fb%3F%20c': health })
    await page.settle()
    page.elements.get('address')!.value = 's3://photos/a/b? c'
    page.elements.get('lookup')!.listeners.submit!({ preventDefault: () => {} })
    await page.settle()
    expect(page.asked).toContain('/v1/objects/photos/a%2Fb%3F%20c')
    expect(page.text('object')).toContain('bafyroot')
    expect(page.text('object')).toContain('margin 1')
    expect(page.text('object')).toContain('2 offline')
  })
})
