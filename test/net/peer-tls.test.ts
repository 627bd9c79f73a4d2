import { createPrivateKey, generateKeyPairSync, sign, X509Certificate } from 'node:crypto'
import { publicKeyToProtobuf } from '@libp2p/crypto/keys'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { dayMs } from '../../src/base/limits.ts'
import { der, derOid, derTags, readDer } from '../../src/net/der.ts'
import { generateIdentity } from '../../src/net/identity.ts'
import { makePeerCertificate, peerIdOfCertificate } from '../../src/net/peer-tls.ts'
import { codeOf } from '../contracts/provider-client.ts'

const now = Date.parse('2026-06-01')
const derOf = (pem: string): Buffer => new X509Certificate(pem).raw

/** Test vectors of the libp2p TLS specification (https://github.com/libp2p/specs/blob/master/tls/tls.md). */
const vectors = {
  ed25519: {
    peerId: '12D3KooWM6CgA9iBFZmcYAHA6A2qvbAxqfkmrYiRQuz3XEsk4Ksv',
    hex: '308201ae30820156a0030201020204499602d2300a06082a8648ce3d040302302031123010060355040a13096c69627032702e696f310a300806035504051301313020170d3735303130313133303030305a180f34303936303130313133303030305a302031123010060355040a13096c69627032702e696f310a300806035504051301313059301306072a8648ce3d020106082a8648ce3d030107034200040c901d423c831ca85e27c73c263ba132721bb9d7a84c4f0380b2a6756fd601331c8870234dec878504c174144fa4b14b66a651691606d8173e55bd37e381569ea37c307a3078060a2b0601040183a25a0101046a3068042408011220a77f1d92fedb59dddaea5a1c4abd1ac2fbde7d7b879ed364501809923d7c11b90440d90d2769db992d5e6195dbb08e706b6651e024fda6cfb8846694a435519941cac215a8207792e42849cccc6cd8136c6e4bde92a58c5e08cfd4206eb5fe0bf909300a06082a8648ce3d0403020346003043021f50f6b6c52711a881778718238f650c9fb48943ae6ee6d28427dc6071ae55e702203625f116a7a454db9c56986c82a25682f7248ea1cb764d322ea983ed36a31b77'
  },
  /** A valid certificate of a secp256k1 peer. */
  secp256k1:
    '308201ba3082015fa0030201020204499602d2300a06082a8648ce3d040302302031123010060355040a13096c69627032702e696f310a300806035504051301313020170d3735303130313133303030305a180f34303936303130313133303030305a302031123010060355040a13096c69627032702e696f310a300806035504051301313059301306072a8648ce3d020106082a8648ce3d030107034200040c901d423c831ca85e27c73c263ba132721bb9d7a84c4f0380b2a6756fd601331c8870234dec878504c174144fa4b14b66a651691606d8173e55bd37e381569ea38184308181307f060a2b0601040183a25a01010471306f0425080212210206dc6968726765b820f050263ececf7f71e4955892776c0970542efd689d2382044630440220145e15a991961f0d08cd15425bb95ec93f6ffa03c5a385eedc34ecf464c7a8ab022026b3109b8a3f40ef833169777eb2aa337cfb6282f188de0666d1bcec2a4690dd300a06082a8648ce3d0403020349003046022100e1a217eeef9ec9204b3f774a08b70849646b6a1e6b8b27f93dc00ed58545d9fe022100b00dafa549d0f03547878338c7b15e7502888f6d45db387e5ae6b5d46899cef0',
  /** The peer's signature is of another key. */
  mismatch:
    '308201f73082019da0030201020204499602d2300a06082a8648ce3d040302302031123010060355040a13096c69627032702e696f310a300806035504051301313020170d3735303130313133303030305a180f34303936303130313133303030305a302031123010060355040a13096c69627032702e696f310a300806035504051301313059301306072a8648ce3d020106082a8648ce3d030107034200040c901d423c831ca85e27c73c263ba132721bb9d7a84c4f0380b2a6756fd601331c8870234dec878504c174144fa4b14b66a651691606d8173e55bd37e381569ea381c23081bf3081bc060a2b0601040183a25a01010481ad3081aa045f0803125b3059301306072a8648ce3d020106082a8648ce3d03010703420004bf30511f909414ebdd3242178fd290f093a551cf75c973155de0bb5a96fedf6cb5d52da7563e794b512f66e60c7f55ba8a3acf3dd72a801980d205e8a1ad29f204473045022100bb6e03577b7cc7a3cd1558df0da2b117dfdcc0399bc2504ebe7de6f65cade72802206de96e2a5be9b6202adba24ee0362e490641ac45c240db71fe955f2c5cf8df6e300a06082a8648ce3d0403020348003045022100e847f267f43717358f850355bdcabbefb2cfbf8a3c043b203a14788a092fe8db022027c1d04a2d41fd6b57a7e8b3989e470325de4406e52e084e34a3fd56eef0d0df'
}

describe('a peer certificate', () => {
  test('proves the peer id it was made for, and each is another', async () => {
    const identity = await generateIdentity()
    const [a, b] = [await makePeerCertificate(identity, { now }), await makePeerCertificate(identity, { now })]
    expect(a.key).not.toBe(b.key)
    for (const { cert } of [a, b]) expect(await peerIdOfCertificate(derOf(cert), now)).toBe(identity.peerId)
    expect(new X509Certificate(a.cert).checkPrivateKey(createPrivateKey(a.key))).toBe(true)
  })

  test('of the specification is understood', async () => {
    expect(await peerIdOfCertificate(Buffer.from(vectors.ed25519.hex, 'hex'), now)).toBe(vectors.ed25519.peerId)
  })

  test('of a peer with a key of another type, or signed by another, proves nothing', async () => {
    for (const hex of [vectors.secp256k1, vectors.mismatch]) {
      expect(await codeOf(peerIdOfCertificate(Buffer.from(hex, 'hex'), now))).toBe('PROTOCOL')
    }
  })

  test('counts only in its time, however often it was seen', async () => {
    const { cert } = await makePeerCertificate(await generateIdentity(), { now, validForMs: dayMs })
    await peerIdOfCertificate(derOf(cert), now)
    expect(await codeOf(peerIdOfCertificate(derOf(cert), now + dayMs + 1000))).toBe('PROTOCOL')
    expect(await codeOf(peerIdOfCertificate(derOf(cert), now - dayMs))).toBe('PROTOCOL')
    await peerIdOfCertificate(derOf(cert), now)
  })

  test('beyond 2049 is dated as X.509 wants it', async () => {
    const later = Date.parse('2055-01-01')
    const { cert } = await makePeerCertificate(await generateIdentity(), { now: later })
    expect(new X509Certificate(cert).validFromDate.getTime()).toBe(later - 3_600_000)
  })

  test('is checked in every byte', async () => {
    const identity = await generateIdentity()
    const { cert } = await makePeerCertificate(identity, { now })
    const good = derOf(cert)
    await fc.assert(
      fc.asyncProperty(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }), async (at, change) => {
        const bad = Buffer.from(good)
        bad[at]! ^= change
        // Whatever was changed, nobody else's id comes out; nearly always nothing does.
        const result = await peerIdOfCertificate(bad, now).catch((error: { code: string }) => error.code)
        expect(['PROTOCOL', identity.peerId]).toContain(result)
      }),
      { numRuns: 300 }
    )
  })

  test('whose own signature is broken proves nothing', async () => {
    const { cert } = await makePeerCertificate(await generateIdentity(), { now })
    const bad = Buffer.from(derOf(cert))
    bad[bad.length - 1]! ^= 1
    expect(() => new X509Certificate(bad)).not.toThrow()
    expect(await codeOf(peerIdOfCertificate(bad, now))).toBe('PROTOCOL')
  })

  test('that was taken over by another key pair proves nothing', async () => {
    // The extension of one peer's certificate, in a certificate that somebody else signed.
    const victim = await generateIdentity()
    const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const keyInfo = stranger.publicKey.export({ type: 'spki', format: 'der' })
    const proof = der(
      derTags.sequence,
      der(derTags.octetString, publicKeyToProtobuf(victim.privateKey.publicKey)),
      der(derTags.octetString, await victim.sign(Buffer.from('some other statement')))
    )
    const certificate = selfSigned(keyInfo, stranger.privateKey, [
      [derOid('1.3.6.1.4.1.53594.1.1'), der(derTags.octetString, proof)]
    ])
    expect(() => new X509Certificate(certificate)).not.toThrow()
    expect(await codeOf(peerIdOfCertificate(certificate, now))).toBe('PROTOCOL')
  })

  test('with a critical extension nobody knows proves nothing; with one that is not critical, it does', async () => {
    const identity = await generateIdentity()
    const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const keyInfo = pair.publicKey.export({ type: 'spki', format: 'der' })
    const proof = der(
      derTags.sequence,
      der(derTags.octetString, publicKeyToProtobuf(identity.privateKey.publicKey)),
      der(derTags.octetString, await identity.sign(Buffer.concat([Buffer.from('libp2p-tls-handshake:'), keyInfo])))
    )
    const ours = [derOid('1.3.6.1.4.1.53594.1.1'), der(derTags.octetString, proof)]
    const other = [derOid('1.3.6.1.4.1.53594.9.9'), der(derTags.octetString, Buffer.from('?'))]
    const critical = [other[0]!, der(derTags.boolean, Buffer.of(0xff)), other[1]!]
    expect(await peerIdOfCertificate(selfSigned(keyInfo, pair.privateKey, [other, ours]), now)).toBe(identity.peerId)
    for (const extensions of [[critical, ours], [ours, ours], [other], []]) {
      expect(await codeOf(peerIdOfCertificate(selfSigned(keyInfo, pair.privateKey, extensions), now))).toBe('PROTOCOL')
    }
  })

  test('anything else proves nothing', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
        expect(await codeOf(peerIdOfCertificate(bytes, now))).toBe('PROTOCOL')
      })
    )
    expect(await codeOf(peerIdOfCertificate(new Uint8Array(1_000_000), now))).toBe('PROTOCOL')
  })
})

describe('DER', () => {
  test('reads what it writes', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.integer({ min: 1, max: 255 }), fc.uint8Array({ maxLength: 400 }))), (values) => {
        const bytes = Buffer.concat(values.map(([tag, content]) => der(tag, content)))
        expect(readDer(bytes).map(({ tag, content }) => [tag, [...content]])).toEqual(
          values.map(([tag, content]) => [tag, [...content]])
        )
      })
    )
    const long = der(4, new Uint8Array(40_000))
    expect(readDer(long)[0]!.content.length).toBe(40_000)
    expect(() => der(4, new Uint8Array(70_000))).toThrow(RangeError)
  })

  test('reads garbage to an end or an error, never beyond the bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        try {
          for (const { content } of readDer(bytes)) expect(content.length).toBeLessThanOrEqual(bytes.length)
        } catch (error) {
          expect((error as Error).message).toMatch(/^DER/)
        }
      })
    )
  })
})

function selfSigned(
  keyInfo: Uint8Array,
  privateKey: Parameters<typeof sign>[2],
  extensions: Uint8Array[][]
): Uint8Array {
  const algorithm = der(derTags.sequence, derOid('1.2.840.10045.4.3.2'))
  const time = (text: string): Uint8Array => der(derTags.utcTime, Buffer.from(text))
  const name = der(derTags.sequence)
  const toBeSigned = der(
    derTags.sequence,
    der(derTags.context(0), der(derTags.integer, Buffer.of(2))),
    der(derTags.integer, Buffer.of(1)),
    algorithm,
    name,
    der(derTags.sequence, time('250101000000Z'), time('350101000000Z')),
    name,
    keyInfo,
    ...(extensions.length === 0
      ? []
      : [der(derTags.context(3), der(derTags.sequence, ...extensions.map((parts) => der(derTags.sequence, ...parts))))])
  )
  return der(
    derTags.sequence,
    toBeSigned,
    algorithm,
    der(derTags.bitString, Buffer.of(0), sign('sha256', toBeSigned, privateKey))
  )
}
