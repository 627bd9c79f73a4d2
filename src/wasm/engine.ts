/** The engine's WebAssembly interface, as far as the kernels use it: TypeScript keeps its types with the browser's. */

export interface WasmMemory {
  readonly buffer: ArrayBuffer | SharedArrayBuffer
  /** In pages of 64 KiB. Detaches `buffer` unless the memory is shared. @returns the pages there were */
  grow: (pages: number) => number
}

export interface WasmModule {
  readonly __module: never
}

export type WasmExports = Readonly<Record<string, (...values: number[]) => number>>

interface Engine {
  Memory: new (shape: { initial: number; maximum?: number; shared?: boolean }) => WasmMemory
  Module: new (bytes: Uint8Array<ArrayBuffer>) => WasmModule
  Instance: new (module: WasmModule, imports: { env: { memory: WasmMemory } }) => { exports: WasmExports }
  validate: (bytes: Uint8Array<ArrayBuffer>) => boolean
}

const engine = (globalThis as unknown as { WebAssembly: Engine }).WebAssembly

export const pageBytes = 65_536

export interface MemoryShape {
  /** 64 KiB each. */
  initialPages: number
  maximumPages?: number
  /** Shared between threads; then a maximum is needed. */
  shared?: boolean
}

export function createMemory({ initialPages, maximumPages, shared }: MemoryShape): WasmMemory {
  return new engine.Memory({ initial: initialPages, maximum: maximumPages, shared })
}

/** Whether the engine takes the module. */
export function validate(bytes: Uint8Array<ArrayBuffer>): boolean {
  return engine.validate(bytes)
}

export function compile(bytes: Uint8Array<ArrayBuffer>): WasmModule {
  return new engine.Module(bytes)
}

export function instantiate(module: WasmModule, memory: WasmMemory): WasmExports {
  return new engine.Instance(module, { env: { memory } }).exports
}
