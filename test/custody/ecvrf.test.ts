/** The random function: what RFC 9381 publishes, and that nothing but the one honest proof is taken. */
import { createHash } from 'node:crypto'
import { ed25519 } from '@noble/curves/ed25519.js'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { encodeToCurve, nonceBytes, proofToHash, prove, verify, vrfProofBytes } from '../../src/custody/ecvrf.ts'

const hex = (bytes: Uint8Array | undefined): string | undefined => bytes && Buffer.from(bytes).toString('hex')
const unhex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'hex'))

/** RFC 9381, appendix B.3. */
const vectors = [
  {
    example: 16,
    secretKey: '9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60',
    publicKey: 'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a',
    alpha: '',
    h: '91bbed02a99461df1ad4c6564a5f5d829d0b90cfc7903e7a5797bd658abf3318',
    k: '7100f3d9eadb6dc4743b029736ff283f5be494128df128df2817106f345b8594b6d6da2d6fb0b4c0257eb337675d96eab49cf39e66cc2c9547c2bf8b2a6afae4',
    pi: '8657106690b5526245a92b003bb079ccd1a92130477671f6fc01ad16f26f723f26f8a57ccaed74ee1b190bed1f479d9727d2d0f9b005a6e456a35d4fb0daab1268a1b0db10836d9826a528ca76567805',
    beta: '90cf1df3b703cce59e2a35b925d411164068269d7b2d29f3301c03dd757876ff66b71dda49d2de59d03450451af026798e8f81cd2e333de5cdf4f3e140fdd8ae'
  },
  {
    example: 17,
    secretKey: '4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb',
    publicKey: '3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c',
    alpha: '72',
    h: '5b659fc3d4e9263fd9a4ed1d022d75eaacc20df5e09f9ea937502396598dc551',
    k: '42589bbf0c485c3c91c1621bb4bfe04aed7be76ee48f9b00793b2342acb9c167cab856f9f9d4febc311330c20b0a8afd3743d05433e8be8d32522ecdc16cc5ce',
    pi: 'f3141cd382dc42909d19ec5110469e4feae18300e94f304590abdced48aed5933bf0864a62558b3ed7f2fea45c92a465301b3bbf5e3e54ddf2d935be3b67926da3ef39226bbc355bdc9850112c8f4b02',
    beta: 'eb4440665d3891d668e7e0fcaf587f1b4bd7fbfe99d0eb2211ccec90496310eb5e33821bc613efb94db5e5b54c70a848a0bef4553a41befc57663b56373a5031'
  },
  {
    example: 18,
    secretKey: 'c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7',
    publicKey: 'fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025',
    alpha: 'af82',
    h: 'bf4339376f5542811de615e3313d2b36f6f53c0acfebb482159711201192576a',
    k: '38b868c335ccda94a088428cbf3ec8bc7955bfaffe1f3bd2aa2c59fc31a0febc59d0e1af3715773ce11b3bbdd7aba8e3505d4b9de6f7e4a96e67e0d6bb6d6c3a',
    pi: '9bc0f79119cc5604bf02d23b4caede71393cedfbb191434dd016d30177ccbf8096bb474e53895c362d8628ee9f9ea3c0e52c7a5c691b6c18c9979866568add7a2d41b00b05081ed0f58ee5e31b3a970e',
    beta: '645427e5d00c62a23fb703732fa5d892940935942101e456ecca7bb217c61c452118fec1219202a0edcf038bb6373241578be7217ba85a2687f7a0310b2df19f'
  }
] as const

const { secretKey, publicKey, alpha, pi } = vectors[1]
const honest = { key: unhex(publicKey), alpha: unhex(alpha), proof: unhex(pi) }

function flipped(bytes: Uint8Array, bit: number): Uint8Array {
  const altered = Uint8Array.from(bytes)
  altered[bit >> 3]! ^= 1 << (bit & 7)
  return altered
}

describe('RFC 9381, appendix B.3', () => {
  it.each(vectors)('example $example', (vector) => {
    const [sk, input] = [unhex(vector.secretKey), unhex(vector.alpha)]
    expect(hex(ed25519.getPublicKey(sk))).toBe(vector.publicKey)
    const encoded = encodeToCurve(unhex(vector.publicKey), input)!.toBytes()
    expect(hex(encoded)).toBe(vector.h)
    expect(hex(nonceBytes(sk, encoded))).toBe(vector.k)
    expect(hex(prove(sk, input))).toBe(vector.pi)
    expect(hex(proofToHash(unhex(vector.pi)))).toBe(vector.beta)
    expect(hex(verify(unhex(vector.publicKey), input, unhex(vector.pi)))).toBe(vector.beta)
  })
})

describe('a proof', () => {
  it('of any key and input is taken, and is of one output', () => {
    const cases = fc.tuple(fc.uint8Array({ minLength: 32, maxLength: 32 }), fc.uint8Array({ maxLength: 200 }))
    fc.assert(
      fc.property(cases, ([sk, input]) => {
        const proof = prove(sk, input)
        expect(proof).toHaveLength(vrfProofBytes)
        expect(hex(verify(ed25519.getPublicKey(sk), input, proof))).toBe(hex(proofToHash(proof)))
      }),
      { numRuns: 25 }
    )
  })

  it('with any one bit altered is refused', () => {
    for (let bit = 0; bit < 8 * vrfProofBytes; bit++) {
      expect([bit, verify(honest.key, honest.alpha, flipped(honest.proof, bit))]).toEqual([bit, undefined])
    }
  })

  it('is refused for a key or an input with any one bit altered, or of another length', () => {
    for (let bit = 0; bit < 256; bit++) {
      expect([bit, verify(flipped(honest.key, bit), honest.alpha, honest.proof)]).toEqual([bit, undefined])
    }
    for (let bit = 0; bit < 8; bit++) {
      expect([bit, verify(honest.key, flipped(honest.alpha, bit), honest.proof)]).toEqual([bit, undefined])
    }
    for (const other of ['', '7272', '0072']) {
      expect(verify(honest.key, unhex(other), honest.proof)).toBeUndefined()
    }
  })

  it('has one encoding: a scalar above the order is refused, though it means the same', () => {
    const order = ed25519.Point.Fn.ORDER
    const s = BigInt(`0x${Buffer.from(honest.proof.subarray(48)).reverse().toString('hex')}`)
    const withS = (value: bigint): Uint8Array =>
      Buffer.concat([honest.proof.subarray(0, 48), Buffer.from(value.toString(16).padStart(64, '0'), 'hex').reverse()])
    expect(verify(honest.key, honest.alpha, withS(s))).toBeDefined()
    expect(verify(honest.key, honest.alpha, withS(s + order))).toBeUndefined()
    expect(() => proofToHash(withS(s + order))).toThrow(expect.objectContaining({ code: 'BAD_INPUT' }))
  })

  it('by a key of small order is refused, whatever it proves', () => {
    // Each forgery fits the equations of the proof: only the check of the key is in its way.
    const smallOrder = [
      '0100000000000000000000000000000000000000000000000000000000000000',
      'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
      '0000000000000000000000000000000000000000000000000000000000000000',
      '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
      'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a'
    ]
    for (const key of smallOrder) {
      expect([key, ed25519.Point.fromHex(key).isSmallOrder()]).toEqual([key, true])
      expect(forgedFor(unhex(key))).toBeDefined()
      expect([key, verify(unhex(key), honest.alpha, forgedFor(unhex(key)))]).toEqual([key, undefined])
    }
  })

  it('of points that are written another way is refused', () => {
    // y + p of the point with y = 1: the same point, not as RFC 8032 writes it.
    const odd = unhex('eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f')
    expect(verify(odd, honest.alpha, honest.proof)).toBeUndefined()
    expect(verify(honest.key, honest.alpha, Buffer.concat([odd, honest.proof.subarray(32)]))).toBeUndefined()
    const withGamma = (gamma: Uint8Array): Uint8Array => Buffer.concat([gamma, honest.proof.subarray(32)])
    expect(proofToHash(withGamma(unhex(`01${'00'.repeat(31)}`)))).toHaveLength(64)
    expect(() => proofToHash(withGamma(odd))).toThrow(expect.objectContaining({ code: 'BAD_INPUT' }))
  })

  it('that is junk, with a key that is junk, is refused and not thrown at', () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 100 }),
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      fc.uint8Array({ minLength: 80, maxLength: 80 })
    )
    fc.assert(
      fc.property(bytes, bytes, bytes, (key, input, proof) => {
        expect(verify(key, input, proof)).toBeUndefined()
        expect(verify(honest.key, input, proof)).toBeUndefined()
      }),
      { numRuns: 200 }
    )
  })

  it('is not made with a key of another length', () => {
    expect(() => prove(unhex(secretKey).subarray(1), honest.alpha)).toThrow(
      expect.objectContaining({ code: 'BAD_INPUT' })
    )
  })
})

/** What the owner of a small-order key would try: gamma the identity, U and V multiples that need no secret. */
function forgedFor(key: Uint8Array): Uint8Array {
  const identity = ed25519.Point.ZERO
  const nonce = 5n
  const encoded = encodeToCurve(key, honest.alpha)!
  const points = [key, encoded.toBytes(), identity.toBytes()]
  // c is found, not chosen: nonces are tried until c times the key is the identity.
  for (let more = 0n; ; more++) {
    const s = nonce + more
    const u = ed25519.Point.BASE.multiply(s)
    const v = encoded.multiply(s)
    const hash = createHash('sha512').update(Uint8Array.of(3, 2))
    for (const point of [...points, u.toBytes(), v.toBytes()]) hash.update(point)
    const c = hash.update(Uint8Array.of(0)).digest().subarray(0, 16)
    const scalar = BigInt(`0x${Buffer.from(c).reverse().toString('hex')}`)
    if (ed25519.Point.fromBytes(key).multiplyUnsafe(scalar).is0()) {
      const sBytes = Buffer.from(s.toString(16).padStart(64, '0'), 'hex').reverse()
      return Buffer.concat([identity.toBytes(), c, sBytes])
    }
  }
}
