#!/usr/bin/env node
/**
 * The `holdfast` program: finds a runtime that can run it, and runs it. Plain JavaScript of an old dialect, because a
 * machine's own, perhaps old, Node sees this file first; everything behind it needs Node 22.19.
 *
 * A new Node goes on in this very process. An old one hands over to the runtime that the npm package `node` installed
 * beside this one. The two are tied by an IPC channel: when this process is killed outright, the other sees the channel
 * close and ends as well (`lifeline.ts`).
 */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import module from 'node:module'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { keepStrippedSources } from './stripped-sources.js'

const launcher = fileURLToPath(import.meta.url)
const root = path.resolve(path.dirname(launcher), '../..')

/** 22.19 for undici; 23 below .6 cannot run the sources as they are. */
function isSupported(version) {
  const [major, minor] = version.split('.').map(Number)
  return major > 23 || (major === 23 && minor >= 6) || (major === 22 && minor >= 19)
}

/** Node does not strip types below `node_modules`, so what is installed runs what was built. */
function entryPoint() {
  const source = path.join(root, 'src/cli/main.ts')
  const built = path.join(root, 'dist/cli/main.js')
  const isInstalled = root.split(path.sep).includes('node_modules')
  return isInstalled || !fs.existsSync(source) ? built : source
}

/** `node:sqlite` says on every start that it may change; the version is pinned, and stderr is for our own words. */
function hideExperimentalWarnings() {
  const emitWarning = process.emitWarning
  process.emitWarning = (warning, ...rest) => {
    const type = rest[0] !== null && typeof rest[0] === 'object' ? rest[0].type : rest[0]
    if (type === 'ExperimentalWarning' || (warning && warning.name === 'ExperimentalWarning')) return
    emitWarning.call(process, warning, ...rest)
  }
}

async function runHere() {
  hideExperimentalWarnings()
  // Halves the start of a second process. A read-only installation does without: the call then reports failure.
  const cache = path.join(root, 'node_modules/.cache/holdfast')
  module.enableCompileCache(cache)
  keepStrippedSources(path.join(cache, 'stripped'))
  const entry = entryPoint()
  const program = await import(pathToFileURL(entry).href)
  await program.main(process.argv.slice(2), { launcher })
}

function pinnedRuntime() {
  const resolve = module.createRequire(import.meta.url).resolve
  for (const file of ['node/bin/node', 'node/bin/node.exe']) {
    try {
      return resolve(file)
    } catch {
      // not under this name, or not installed: the next one, or the message below
    }
  }
  return undefined
}

function handOver() {
  const runtime = pinnedRuntime()
  if (runtime === undefined) {
    process.stderr.write(
      `holdfast needs Node.js 22.19 or newer; this is ${process.versions.node}, and the runtime that npm installs with holdfast is missing.\n` +
        'Install a newer Node.js, or install holdfast again with its dependencies ("npm ci", without --ignore-scripts).\n'
    )
    process.exit(1)
  }
  const child = spawn(runtime, process.execArgv.concat(launcher, process.argv.slice(2)), {
    stdio: ['inherit', 'inherit', 'inherit', 'ipc']
  })
  // A terminal's Ctrl-C reaches both processes; what is sent to this one alone has to be passed on.
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR2']
  const handlers = new Map(signals.map((signal) => [signal, () => child.kill(signal)]))
  for (const [signal, handler] of handlers) process.on(signal, handler)
  child.on('error', (error) => {
    process.stderr.write(`holdfast cannot start ${runtime}: ${error.message}\n`)
    process.exit(1)
  })
  child.on('exit', (code, signal) => {
    for (const [name, handler] of handlers) process.removeListener(name, handler)
    if (signal !== null) process.kill(process.pid, signal)
    else process.exit(code)
  })
}

if (isSupported(process.versions.node)) await runHere()
else handOver()
