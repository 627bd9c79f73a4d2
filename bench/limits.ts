/**
 * What the machine could do: each step that an object's bytes go through, alone, on one thread, with nothing else going
 * on. Every figure of the network is to be read beside these.
 */
import { mkdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { createMD5, createSHA256 } from 'hash-wasm'
import { forEachLimit } from '../src/base/concurrency.ts'
import { writeFileDurably } from '../src/base/durable-file.ts'
import { MiB } from '../src/base/limits.ts'
import { blake3, blake3Implementation } from '../src/content/blake3.ts'
import { type Code, formatCode } from '../src/erasure/erasure-coder.ts'
import { createWasmCoder } from '../src/erasure/wasm-coder.ts'
import { cipherAt } from '../src/object/cipher.ts'
