/** The input of BLAKE3's published vectors: bytes 0, 1, ... 250, 0, 1, ... */
export const pattern = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => i % 251)

export const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
