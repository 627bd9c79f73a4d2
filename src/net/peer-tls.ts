/**
 * TLS certificates that prove a libp2p peer id, after https://github.com/libp2p/specs/blob/master/tls/tls.md: a
 * self-signed certificate of a throw-away key, with an extension in which the peer key signs that key. Nothing else
 * in the certificate counts, and no authority is asked.
 */
import { createHash, generateKeyPairSync, sign as signWith, X509Certificate } from 'node:crypto'
import { publicKeyFromProtobuf, publicKeyToProtobuf } from '@libp2p/crypto/keys'
import { peerIdFromPublicKey } from '@libp2p/peer-id'
import { equalBytes } from '../base/bytes.ts'
import { HoldfastError } from '../base/errors.ts'
import { dayMs, hourMs } from '../base/limits.ts'
import { type DerValue, der, derContent, derOid, derParts, derTags, readDer } from './der.ts'
import type { Identity } from './identity.ts'

const extensionOid = derOid('1.3.6.1.4.1.53594.1.1')
const ecdsaWithSha256 = der(derTags.sequence, derOid('1.2.840.10045.4.3.2'))
const signingPrefix = Buffer.from('libp2p-tls-handshake:')
/** A certificate as made below has about 450 bytes. */
const certificateBytesMax = 16 * 1024
/** Certificates whose verification is remembered. */
const verifiedMax = 4096

export interface PeerCertificate {
  /** PEM. */
  cert: string
  /** PEM, PKCS #8. */
  key: string
}

export interface CertificateInit {
  /** Milliseconds since the Unix epoch. */
  now: number
  validForMs?: number
}

/** A fresh certificate of this peer, with a key pair of its own. It is not kept: every process makes one at start. */
export async function makePeerCertificate(
  identity: Identity,
  { now, validForMs = 10 * 365 * dayMs }: CertificateInit
): Promise<PeerCertificate> {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const keyInfo = publicKey.export({ type: 'spki', format: 'der' })
  const proof = der(
    derTags.sequence,
    der(derTags.octetString, publicKeyToProtobuf(identity.privateKey.publicKey)),
    der(derTags.octetString, await identity.sign(Buffer.concat([signingPrefix, keyInfo])))
  )
  const extension = der(
    derTags.sequence,
    extensionOid,
    der(derTags.boolean, Buffer.of(0xff)),
    der(derTags.octetString, proof)
  )
  const serial = createHash('sha256').update(keyInfo).digest().subarray(0, 8)
  serial[0] = (serial[0]! & 0x7f) | 0x40 // positive, and of minimal length
  const name = der(derTags.sequence) // nobody reads names
  const toBeSigned = der(
    derTags.sequence,
    der(derTags.context(0), der(derTags.integer, Buffer.of(2))), // X.509 version 3
    der(derTags.integer, serial),
    ecdsaWithSha256,
    name,
    der(derTags.sequence, time(now - hourMs), time(now + validForMs)), // an hour for clocks that are behind
    name,
    keyInfo,
    der(derTags.context(3), der(derTags.sequence, extension))
  )
  const signature = signWith('sha256', toBeSigned, privateKey)
  const certificate = der(
    derTags.sequence,
    toBeSigned,
    ecdsaWithSha256,
    der(derTags.bitString, Buffer.of(0), signature)
  )
  return {
    cert: pem('CERTIFICATE', certificate),
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  }
}

/**
 * The peer id that a certificate proves: its key pair is the peer's, the handshake having shown that the other end
 * holds the private half.
 *
 * @throws HoldfastError `PROTOCOL` for a certificate that proves nothing
 */
export async function peerIdOfCertificate(certificate: Uint8Array, now: number): Promise<string> {
  try {
    const fingerprint = createHash('sha256').update(certificate).digest('base64')
    const known = verified.get(fingerprint) ?? (await verify(certificate))
    remember(fingerprint, known)
    if (now < known.validFrom || now > known.validTo) throw new Error('it is not valid now')
    return known.peerId
  } catch (cause) {
    throw new HoldfastError('PROTOCOL', 'the certificate proves no peer id', { cause })
  }
}

interface Verified {
  peerId: string
  validFrom: number
  validTo: number
}

const verified = new Map<string, Verified>()

function remember(fingerprint: string, value: Verified): void {
  verified.delete(fingerprint) // so that the oldest entry is the least recently used
  verified.set(fingerprint, value)
  if (verified.size <= verifiedMax) return
  const [oldest] = verified.keys()
  verified.delete(oldest!)
}

async function verify(bytes: Uint8Array): Promise<Verified> {
  if (bytes.length > certificateBytesMax) throw new Error('it is too large')
  const certificate = new X509Certificate(bytes)
  const { publicKey } = certificate
  const { asymmetricKeyType, asymmetricKeyDetails } = publicKey
  const isStrong =
    asymmetricKeyType === 'ed25519' ||
    (asymmetricKeyType === 'ec' && strongCurves.has(asymmetricKeyDetails?.namedCurve ?? '')) ||
    (asymmetricKeyType === 'rsa' && (asymmetricKeyDetails?.modulusLength ?? 0) >= 2048)
  if (!isStrong) throw new Error(`its key type is not accepted: ${asymmetricKeyType}`)
  if (!certificate.verify(publicKey)) throw new Error('it is not self-signed')
  const [key, signature, ...more] = derParts(readOne(proofOf(bytes)), derTags.sequence)
  if (more.length > 0) throw new Error('its extension has surplus parts')
  const peerKey = publicKeyFromProtobuf(derContent(key, derTags.octetString))
  if (peerKey.type !== 'Ed25519') throw new Error(`its peer key is not Ed25519 but ${peerKey.type}`)
  const signed = Buffer.concat([signingPrefix, publicKey.export({ type: 'spki', format: 'der' })])
  if (!(await peerKey.verify(signed, derContent(signature, derTags.octetString)))) throw new Error('bad peer signature')
  return {
    peerId: peerIdFromPublicKey(peerKey).toString(),
    validFrom: certificate.validFromDate.getTime(),
    validTo: certificate.validToDate.getTime()
  }
}

const strongCurves = new Set(['prime256v1', 'secp384r1', 'secp521r1'])

/** The value of the libp2p extension. Extensions marked critical that nobody here knows make a certificate invalid. */
function proofOf(certificate: Uint8Array): Uint8Array {
  const [toBeSigned] = derParts(readOne(certificate), derTags.sequence)
  const wrapper = derParts(toBeSigned, derTags.sequence).find(({ tag }) => tag === derTags.context(3))
  let proof: Uint8Array | undefined
  for (const extension of derParts(readOne(derContent(wrapper, derTags.context(3))), derTags.sequence)) {
    const parts = derParts(extension, derTags.sequence)
    const isCritical = parts[1]?.tag === derTags.boolean
    const isProof = equalBytes(derContent(parts[0], derTags.oid), extensionOid.subarray(2))
    if (isProof && proof !== undefined) throw new Error('its extension is there twice')
    if (isProof) proof = derContent(parts[isCritical ? 2 : 1], derTags.octetString)
    else if (isCritical) throw new Error('it has an unknown critical extension')
  }
  if (proof === undefined) throw new Error('it lacks the libp2p extension')
  return proof
}

function readOne(bytes: Uint8Array): DerValue {
  const [value, ...more] = readDer(bytes)
  if (value === undefined || more.length > 0) throw new Error('expected one DER value')
  return value
}

/** UTCTime until 2049, GeneralizedTime after, as RFC 5280 wants it. */
function time(ms: number): Uint8Array {
  const digits = `${new Date(ms).toISOString().replace(/[-:T]/g, '').slice(0, 14)}Z`
  return digits < '2050'
    ? der(derTags.utcTime, Buffer.from(digits.slice(2)))
    : der(derTags.generalizedTime, Buffer.from(digits))
}

function pem(label: string, bytes: Uint8Array): string {
  const lines =
    Buffer.from(bytes)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}
