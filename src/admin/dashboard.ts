/**
 * The dashboard: one page, served whole, that asks `/v1/status`, `/v1/providers`, `/v1/audits` and `/v1/objects/...` of
 * the server it came from. Nothing is loaded from anywhere else, and its policy would not allow it; what peers named
 * themselves is only ever shown as text.
 */
import { createHash } from 'node:crypto'

const style = `
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #fff; --line: #dfe3e8; --ink: #17202a; --soft: #566373; --accent: #1f5fbf;
  --good: #187a43; --good-soft: #d9f2e3; --warn: #8a5a00; --warn-soft: #fdeecb; --bad: #b3261e; --bad-soft: #fbdedb;
  --idle: #5b6673; --idle-soft: #e5e9ee; --track: #e5e9ee;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #10151b; --card: #182029; --line: #2b3641; --ink: #e8edf2; --soft: #a0adba; --accent: #84b4ff;
    --good: #6fdc9f; --good-soft: #16392a; --warn: #f3c969; --warn-soft: #40320f; --bad: #ff9d94; --bad-soft: #4a1f1c;
    --idle: #a0adba; --idle-soft: #2b3641; --track: #2b3641;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main, header { max-width: 1180px; margin: 0 auto; padding: 0 20px; }
header { display: flex; flex-wrap: wrap; align-items: center; gap: 6px 16px; padding-top: 22px; padding-bottom: 14px; }
h1 { font-size: 22px; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 16px; margin: 0 0 12px; }
code { font: 13px/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.soft { color: var(--soft); }
.right { margin-left: auto; }
.pill { display: inline-block; padding: 1px 10px; border-radius: 999px; font-size: 13px; font-weight: 600; white-space: nowrap; }
.good { color: var(--good); background: var(--good-soft); }
.warn { color: var(--warn); background: var(--warn-soft); }
.bad { color: var(--bad); background: var(--bad-soft); }
.idle { color: var(--idle); background: var(--idle-soft); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px; margin: 0 0 14px; padding: 0; }
.card, section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 16px 18px; }
section { margin-bottom: 14px; }
.card dt { color: var(--soft); font-size: 13px; }
.card dd { margin: 2px 0 0; }
.card .figure { font-size: 26px; font-weight: 650; line-height: 1.25; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-size: 12.5px; font-weight: 600; color: var(--soft); }
th, td { padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line); white-space: nowrap; vertical-align: middle; }
tr:last-child td { border-bottom: 0; }
.number { text-align: right; }
.bar { display: inline-block; width: 92px; height: 8px; border-radius: 4px; background: var(--track); overflow: hidden; margin-right: 8px; vertical-align: middle; }
.bar i { display: block; height: 100%; background: var(--accent); }
form { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; }
input { flex: 1 1 320px; font: inherit; padding: 7px 10px; color: inherit; background: var(--page); border: 1px solid var(--line); border-radius: 8px; }
button { font: inherit; font-weight: 600; padding: 7px 16px; color: #fff; background: #1f5fbf; border: 0; border-radius: 8px; cursor: pointer; }
a { color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.segment { margin-top: 14px; }
.shards { display: flex; flex-wrap: wrap; gap: 4px; margin: 6px 0 0; padding: 0; list-style: none; }
.shards li { padding: 1px 8px; border-radius: 6px; font-size: 12.5px; }
[hidden] { display: none !important; }
`

const script = String.raw`
'use strict'
const $ = (id) => document.getElementById(id)
const pollMs = 2000
const segmentsShown = 200
const auditsShown = 12

const make = (name, text, className) => {
  const element = document.createElement(name)
  if (text !== undefined) element.textContent = text
  if (className) element.className = className
  return element
}
const size = (bytes) => {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB']
  let unit = 0
  while (bytes >= 999.95 && unit < units.length - 1) { bytes /= 1000; unit++ }
  return (unit === 0 || bytes >= 99.95 ? Math.round(bytes) : bytes.toFixed(1)) + ' ' + units[unit]
}
const count = (n) => n.toLocaleString('en')
const ask = async (path) => {
  const response = await fetch(path, { headers: { accept: 'application/json' } })
  const body = await response.json()
  if (!response.ok) throw new Error(body.message || 'status ' + response.status)
  return body
}
const tone = { online: 'good', contained: 'warn', offline: 'bad', unknown: 'idle',
  healthy: 'good', missing: 'bad', wrong: 'bad', withdrawn: 'warn',
  vetted: 'good', vetting: 'idle', closed: 'warn', suspended: 'bad',
  ok: 'good', timeout: 'warn', refused: 'warn' }
const pill = (state, text) => make('span', text || state, 'pill ' + (tone[state] || 'idle'))
const peer = (id) => {
  const code = make('code', '\u2026' + id.slice(-8))
  code.title = id
  return code
}
const put = (id, text) => { if ($(id).textContent !== text) $(id).textContent = text }

function showStatus(status) {
  const state = $('state')
  state.className = 'pill ' + (status.ready ? 'good' : 'warn')
  put('state', status.ready ? 'ready' : 'not ready')
  put('reasons', status.reasons.join('; '))
  put('endpoint', status.endpoint)
  put('version', 'version ' + status.version)
  const known = Object.values(status.providers).reduce((sum, n) => sum + n, 0)
  put('online', count(status.providers.online) + ' of ' + count(known))
  put('states', ['offline', 'contained', 'unknown'].filter((name) => status.providers[name] > 0)
    .map((name) => count(status.providers[name]) + ' ' + name).join(', ') || 'all answer')
  put('free', size(status.freeBytes))
  put('capacity', 'of ' + size(status.capacityBytes) + ' given')
  put('objects', count(status.objects))
  put('stored', size(status.objectBytes) + ' in ' + count(status.buckets) + (status.buckets === 1 ? ' bucket' : ' buckets'))
  put('incomplete', count(status.incompleteSegments))
  put('segments', 'of ' + count(status.segments) + ' segments, ' + count(status.shards) + ' shards')
  const custody = status.custody
  put('audits', count(custody.audits))
  put('custody', custody.ownOutage ? 'suspended: an outage on this side'
    : custody.contained > 0 ? count(custody.contained) + ' challenges to be put again' : 'nothing to be asked again')
  put('codes', Object.entries(status.codes).map(([name, code]) => name + ' ' + (code || 'too few providers')).join(' \u00b7 '))
}

function providerRow(p) {
  const row = make('tr')
  const used = Math.max(0, p.capacityBytes - p.freeBytes)
  const share = p.capacityBytes > 0 ? used / p.capacityBytes : 0
  const id = make('td')
  id.append(peer(p.peerId))
  const standing = make('td')
  const weight = make('td', p.score ? p.score.weight.toFixed(2) : '\u2013', 'number')
  if (p.score) {
    standing.append(pill(p.score.standing))
    standing.title = weight.title = p.score.why + '\ncustody ' + p.score.custody.toFixed(3) +
      ', availability ' + p.score.availability.toFixed(3) + ', ' + count(p.score.proofs) + ' proofs'
  } else standing.append(make('span', 'not audited', 'soft'))
  const state = make('td')
  state.append(pill(p.state))
  if (p.state === 'online' && p.draining) state.append(' ', make('span', 'draining', 'soft'))
  else if (p.state === 'online' && !p.accepting) state.append(' ', make('span', 'takes nothing new', 'soft'))
  const space = make('td')
  if (p.capacityBytes > 0) {
    const bar = make('span', undefined, 'bar')
    const fill = make('i')
    fill.style.width = (share * 100).toFixed(1) + '%'
    bar.append(fill)
    bar.setAttribute('aria-hidden', 'true')
    space.append(bar, size(used) + ' of ' + size(p.capacityBytes))
  } else space.append(make('span', 'not known', 'soft'))
  const failures = Object.entries(p.outcomes).filter(([name, n]) => name !== 'ok' && n > 0).map(([name, n]) => count(n) + ' ' + name).join(', ')
  row.append(make('td', p.domain || '\u2013'), id, state, standing, weight, space,
    make('td', count(p.shards), 'number'), make('td', p.latencyMs === null ? '\u2013' : Math.round(p.latencyMs) + ' ms', 'number'),
    make('td', count(p.outcomes.ok || 0), 'number'), make('td', failures || '\u2013'))
  return row
}

function showProviders(providers) {
  const order = { offline: 0, contained: 1, unknown: 2, online: 3 }
  providers.sort((a, b) => order[a.state] - order[b.state] || a.domain.localeCompare(b.domain, 'en', { numeric: true }) || (a.peerId < b.peerId ? -1 : 1))
  $('providers').replaceChildren(...providers.map(providerRow))
  $('none').hidden = providers.length > 0
}

function auditRow(a) {
  const row = make('tr')
  const asked = make('td')
  asked.append(make('time', a.askedAt.slice(0, 19).replace('T', ' ') + ' UTC'))
  const provider = make('td')
  provider.append(peer(a.provider))
  const outcomes = make('td')
  for (const [name, n] of Object.entries(a.outcomes)) if (n > 0) outcomes.append(pill(name, count(n) + ' ' + name), ' ')
  row.append(asked, provider, make('td', count(a.challenges), 'number'), outcomes,
    make('td', Math.round(a.tookMs) + ' ms', 'number'), make('td', a.countersigned ? 'by both' : 'by the auditor alone'))
  return row
}

function showAudits(audits) {
  $('recent').replaceChildren(...audits.map(auditRow))
  $('unaudited').hidden = audits.length > 0
}

function segmentView(title, segment) {
  const view = make('div', undefined, 'segment')
  const head = make('div')
  const level = segment.margin < 0 ? 'bad' : segment.healthy < segment.shards.length ? 'warn' : 'good'
  head.append(title + ' ', make('span', segment.code, 'soft'), ' ',
    make('span', segment.margin < 0 ? 'unreadable now' : 'margin ' + segment.margin, 'pill ' + level))
  const list = make('ul', undefined, 'shards')
  segment.shards.forEach((shard, i) => {
    const item = make('li', i + 1 + ' ' + shard.state, tone[shard.state] || 'idle')
    item.title = shard.cid + '\n' + (shard.provider ? 'at ' + shard.provider : 'not placed') + (shard.lastProof ? '\nproved ' + shard.lastProof : '')
    list.append(item)
  })
  view.append(head, list)
  return view
}

async function showObject(event) {
  event.preventDefault()
  const answer = $('object')
  const match = /^(?:s3:\/\/)?([^/]+)\/([^]+)$/.exec($('address').value.trim())
  if (!match) { answer.replaceChildren(make('p', 'Write it as s3://bucket/key.', 'soft')); return }
  try {
    const health = await ask('/v1/objects/' + encodeURIComponent(match[1]) + '/' + encodeURIComponent(match[2]))
    const cid = make('p', size(health.size) + ' ')
    cid.append(make('code', health.cid))
    const segments = health.segments.slice(0, segmentsShown).map((segment, i) => segmentView('Segment ' + (i + 1), segment))
    const blocks = (health.blocks || []).slice(0, segmentsShown).map((segment, i) => segmentView('Manifest block ' + (i + 1), segment))
    const left = health.segments.length - segments.length
    answer.replaceChildren(cid, ...segments, ...(left > 0 ? [make('p', count(left) + ' more segments', 'soft')] : []), ...blocks)
  } catch (error) {
    answer.replaceChildren(make('p', error.message, 'soft'))
  }
}

async function poll() {
  if (!document.hidden) {
    try {
      const [status, listing, audits] = await Promise.all([
        ask('/v1/status'), ask('/v1/providers'), ask('/v1/audits?limit=' + auditsShown)])
      showStatus(status)
      showProviders(listing.providers)
      showAudits(audits.items)
      $('lost').hidden = true
    } catch {
      $('lost').hidden = false
    }
  }
  setTimeout(poll, pollMs)
}

$('lookup').addEventListener('submit', showObject)
poll()
`

export const dashboardHtml = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Holdfast</title>
<link rel="icon" href="data:,">
<style>${style}</style>
</head>
<body>
<header>
  <h1>Holdfast</h1>
  <span id="state" class="pill idle" role="status">asking</span>
  <span id="reasons" class="soft"></span>
  <span class="right soft"><code id="endpoint"></code> <span id="version"></span></span>
</header>
<main>
  <section id="lost" class="bad" role="alert" hidden>The gateway does not answer. What is below is what it said last.</section>
  <dl class="cards">
    <div class="card"><dt>Providers online</dt><dd class="figure" id="online">&ndash;</dd><dd class="soft" id="states"></dd></div>
    <div class="card"><dt>Free space</dt><dd class="figure" id="free">&ndash;</dd><dd class="soft" id="capacity"></dd></div>
    <div class="card"><dt>Objects</dt><dd class="figure" id="objects">&ndash;</dd><dd class="soft" id="stored"></dd></div>
    <div class="card"><dt>Segments below full margin</dt><dd class="figure" id="incomplete">&ndash;</dd><dd class="soft" id="segments"></dd></div>
    <div class="card"><dt>Audits</dt><dd class="figure" id="audits">&ndash;</dd><dd class="soft" id="custody"></dd></div>
  </dl>
  <section aria-labelledby="providers-title">
    <h2 id="providers-title">Providers</h2>
    <div class="scroll">
      <table>
        <thead><tr><th scope="col">Domain</th><th scope="col">Peer</th><th scope="col">State</th>
          <th scope="col">Standing</th><th scope="col" class="number">Weight</th><th scope="col">Space used</th>
          <th scope="col" class="number">Shards</th><th scope="col" class="number">Latency</th><th scope="col" class="number">Answered</th><th scope="col">Failures</th></tr></thead>
        <tbody id="providers"></tbody>
      </table>
    </div>
    <p id="none" class="soft" hidden>None found yet. Start one with <code>holdfast provider --data DIR --bootstrap MULTIADDR</code>.</p>
    <p class="soft">New objects are coded <span id="codes"></span></p>
  </section>
  <section aria-labelledby="audits-title">
    <h2 id="audits-title">Recent audits</h2>
    <div class="scroll">
      <table>
        <thead><tr><th scope="col">Asked</th><th scope="col">Peer</th><th scope="col" class="number">Challenges</th><th scope="col">Outcomes</th>
          <th scope="col" class="number">Took</th><th scope="col">Signed</th></tr></thead>
        <tbody id="recent"></tbody>
      </table>
    </div>
    <p id="unaudited" class="soft" hidden>None yet. <code>holdfast audit</code> asks for one.</p>
    <p class="soft"><a href="/v1/audits/export">All transcripts</a>, for <code>holdfast audit --verify FILE</code>.</p>
  </section>
  <section aria-labelledby="object-title">
    <h2 id="object-title">Where an object is</h2>
    <form id="lookup"><input id="address" aria-label="Address of an object" placeholder="s3://bucket/key" autocomplete="off" spellcheck="false"><button>Look up</button></form>
    <div id="object" aria-live="polite"></div>
  </section>
  <noscript><p>This page needs JavaScript; the same figures are at <a href="/v1/status">/v1/status</a> and <a href="/v1/providers">/v1/providers</a>.</p></noscript>
</main>
<script>${script}</script>
</body>
</html>
`

const hashOf = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`

/** Its own script and style by hash, its own server for data, and nothing else. */
export const dashboardPolicy = [
  "default-src 'none'",
  `script-src ${hashOf(script)}`,
  `style-src ${hashOf(style)}`,
  "connect-src 'self'",
  'img-src data:',
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'"
].join('; ')
