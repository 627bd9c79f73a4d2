/**
 * The sources as the runtime takes them, kept from an earlier start: without this, stripping their types is a third of what
 * a process needs to start, and a network starts thirteen of them. Kept by content, so that nothing is ever stale. Like the
 * launcher this is plain JavaScript that any Node can read.
 */
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import module from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

/** Processes that start together may all write the same file: each its own, and the name goes to the last. */
function keep(file, text) {
  try {
    fs.mkdirSync(path.dirname(file), { recursive: true })
    fs.writeFileSync(`${file}.${process.pid}`, text)
    fs.renameSync(`${file}.${process.pid}`, file)
  } catch {
    // a read-only installation does without
  }
}

/** To be called before the first source is imported; where this Node can't, its own way is left as it is. */
export function keepStrippedSources(directory) {
  if (module.registerHooks === undefined || module.stripTypeScriptTypes === undefined) return
  module.registerHooks({
    load(url, context, nextLoad) {
      if (!url.startsWith('file:') || !url.endsWith('.ts')) return nextLoad(url, context)
      const name = fileURLToPath(url)
      const text = fs.readFileSync(name, 'utf8')
      const key = createHash('sha256').update(`${process.version}\n${name}\n${text}`).digest('hex')
      const file = path.join(directory, `${key}.js`)
      let source
      try {
        source = fs.readFileSync(file, 'utf8')
      } catch {
        source = `${module.stripTypeScriptTypes(text)}\n\n//# sourceURL=${name}`
        keep(file, source)
      }
      return { format: 'module', source, shortCircuit: true }
    }
  })
}
