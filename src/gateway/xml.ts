/** S3's XML: a small writer for answers, and a strict reader for the few documents that clients send. */
import { XMLParser, XMLValidator } from 'fast-xml-parser'
import { S3Error } from './errors.ts'

export const s3Namespace = 'http://s3.amazonaws.com/doc/2006-03-01/'

/** Serialised XML, told apart from text that still has to be escaped. */
export class Xml {
  readonly source: string
  constructor(source: string) {
    this.source = source
  }
}

const escapes: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }

/** Escapes markup, and control characters as S3 does (`&#x1;`): XML 1.0 cannot say those, and XML 1.1 readers can. */
export function escapeXml(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is escaped here
  return text.replace(/[&<>"\u0000-\u0008\u000b-\u001f\u007f\ufffe\uffff]/g, (char) => {
    return escapes[char] ?? `&#x${char.charCodeAt(0).toString(16)};`
  })
}

export type XmlContent = string | number | boolean | Xml | readonly Xml[]

/** One element; text is escaped, children are joined. `attributes` is written as it stands. */
export function element(name: string, content: XmlContent = '', attributes = ''): Xml {
  let inner: string
  if (content instanceof Xml) inner = content.source
  else if (Array.isArray(content)) inner = content.map((child: Xml) => child.source).join('')
  else inner = escapeXml(String(content))
  const open = attributes === '' ? name : `${name} ${attributes}`
  return new Xml(inner === '' ? `<${open}/>` : `<${open}>${inner}</${name}>`)
}

/** The element, or nothing where there is no value to report. */
export function optional(name: string, content: XmlContent | undefined): Xml[] {
  return content === undefined ? [] : [element(name, content)]
}

export function xmlDocument(root: Xml): string {
  return `<?xml version="1.0" encoding="UTF-8"?>\n${root.source}`
}

/** A whole answer: the root element in S3's namespace. */
export function s3Document(name: string, content: XmlContent = ''): string {
  return xmlDocument(element(name, content, `xmlns="${s3Namespace}"`))
}

/** The `<Error>` document of S3's REST interface. */
export function errorDocument(error: S3Error, resource: string, requestId: string, hostId: string): string {
  return xmlDocument(
    element('Error', [
      element('Code', error.code),
      element('Message', error.message),
      ...Object.entries(error.details).map(([name, value]) => element(name, value)),
      element('Resource', resource),
      element('RequestId', requestId),
      element('HostId', hostId)
    ])
  )
}

/** An element of a request document: local name, text of its own, children in order. */
export interface XmlNode {
  name: string
  text: string
  children: XmlNode[]
}

const parser = new XMLParser({
  preserveOrder: true,
  ignoreAttributes: true,
  ignoreDeclaration: true,
  ignorePiTags: true,
  removeNSPrefix: true,
  parseTagValue: false,
  trimValues: false,
  processEntities: false,
  cdataPropName: '#cdata'
})

/** What the parser yields with `preserveOrder`: one key a node, its name; text nodes hold a string. */
type Ordered = Record<string, Ordered[] | string>

/**
 * Reads a request document.
 *
 * @throws S3Error `MalformedXML` unless it is well-formed, has the expected root, and neither DTD nor entities of its own
 */
export function parseXml(source: string, root: string): XmlNode {
  // A DTD has no place in any S3 request, and is how entity bombs are declared. The validator overlooks text that
  // follows an empty root.
  if (/<!(?!--|\[CDATA\[)|[^>\s]\s*$/.test(source) || XMLValidator.validate(source) !== true)
    throw new S3Error('MalformedXML')
  let top: Ordered[]
  try {
    top = parser.parse(source) as Ordered[]
  } catch (cause) {
    throw new S3Error('MalformedXML', undefined, { cause }) // nested too deeply, or what the validator let pass
  }
  const nodes = top.map(toNode).filter((node) => node !== undefined)
  const node = nodes[0]
  if (nodes.length !== 1 || node === undefined || node.name !== root) throw new S3Error('MalformedXML')
  return node
}

function toNode(ordered: Ordered): XmlNode | undefined {
  const name = Object.keys(ordered).find((key) => key !== ':@')
  if (name === undefined || name.startsWith('#')) return undefined
  const content = ordered[name]
  const node: XmlNode = { name, text: '', children: [] }
  for (const child of Array.isArray(content) ? content : []) {
    const text = child['#text']
    const verbatim = child['#cdata']
    if (typeof text === 'string') node.text += decodeEntities(text)
    else if (Array.isArray(verbatim)) node.text += verbatim.map((part) => String(part['#text'] ?? '')).join('')
    else {
      const element = toNode(child)
      if (element !== undefined) node.children.push(element)
    }
  }
  return node
}

const named: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }

function decodeEntities(text: string): string {
  return text.replace(/&([^;&]{0,12};?)/g, (_whole, body: string) => {
    const name = body.slice(0, -1)
    const plain = body.endsWith(';') ? named[name] : undefined
    if (plain !== undefined) return plain
    const digits = /^#(?:x([0-9a-fA-F]+)|([0-9]+));$/.exec(body)
    if (digits === null) throw new S3Error('MalformedXML')
    const point = digits[1] === undefined ? Number.parseInt(digits[2]!, 10) : Number.parseInt(digits[1], 16)
    if (point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) throw new S3Error('MalformedXML')
    return String.fromCodePoint(point)
  })
}

/** The text of the only child of that name; absent where there is none. @throws S3Error `MalformedXML` for several */
export function childText(node: XmlNode, name: string): string | undefined {
  const found = node.children.filter((child) => child.name === name)
  if (found.length > 1) throw new S3Error('MalformedXML')
  return found[0]?.text
}
