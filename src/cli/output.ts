/** Where a command speaks: its result on stdout, everything else on stderr. */
import type { Writable } from 'node:stream'

export interface Output {
  readonly isJson: boolean
  /** Whether somebody watches stderr on a terminal. */
  readonly isInteractive: boolean
  readonly stdout: Writable
  readonly stderr: Writable
  /** The command's result: `value` as one line of JSON with `--json`, else what `render` makes of it. */
  result: (value: unknown, render: () => string) => void
  /** A line for people, on stderr; left out with `--json`. */
  note: (line: string) => void
}

export function createOutput(isJson: boolean): Output {
  const { stdout, stderr } = process
  return {
    isJson,
    isInteractive: stderr.isTTY === true && !isJson,
    stdout,
    stderr,
    result: (value, render) => void stdout.write(`${isJson ? JSON.stringify(value) : printable(render())}\n`),
    note: (line) => {
      if (!isJson) stderr.write(`${printable(line)}\n`)
    }
  }
}

/** Other people's names (keys, domains) must not drive the terminal: control characters become visible ones. */
export function printable(text: string): string {
  // \p{Cc} without the line feed, which separates our own lines.
  return text.replace(/[^\P{Cc}\n]/gu, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`)
}

export interface Column<Row> {
  title: string
  value: (row: Row) => string
  align?: 'right'
}

/** Columns as wide as their content, two spaces between. */
export function table<Row>(rows: readonly Row[], columns: ReadonlyArray<Column<Row>>): string {
  const cells = [columns.map((c) => c.title), ...rows.map((row) => columns.map((c) => c.value(row)))]
  const widths = columns.map((_, i) => Math.max(...cells.map((line) => line[i]!.length)))
  return cells
    .map((line) =>
      line
        .map((cell, i) => (columns[i]!.align === 'right' ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
        .join('  ')
        .trimEnd()
    )
    .join('\n')
}
