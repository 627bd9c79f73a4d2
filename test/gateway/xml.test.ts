import { expect, test } from 'vitest'
import { S3Error } from '../../src/gateway/errors.ts'
import { childText, element, errorDocument, escapeXml, parseXml, s3Document } from '../../src/gateway/xml.ts'

test('text is escaped, control characters as S3 does it', () => {
  expect(escapeXml(`a<b>&"c'\r\n\t\u0001\u{1f600}`)).toBe(`a&lt;b&gt;&amp;&quot;c'&#xd;\n\t&#x1;\u{1f600}`)
})

test('an answer is in the namespace of S3', () => {
  expect(s3Document('A', [element('B', 'x'), element('C')])).toBe(
    '<?xml version="1.0" encoding="UTF-8"?>\n<A xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><B>x</B><C/></A>'
  )
})

test('an error document has no namespace', () => {
  const error = new S3Error('NoSuchKey', undefined, { details: { Key: 'a&b' } })
  expect(errorDocument(error, '/b/a&b', 'ID', 'HOST')).toContain(
    '<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message><Key>a&amp;b</Key><Resource>/b/a&amp;b</Resource><RequestId>ID</RequestId>'
  )
})

test('a document is read with prefixes, entities, comments, CDATA and white space as they are', () => {
  const root = parseXml(
    `<?xml version="1.0"?><s3:Delete xmlns:s3="urn:x"><!-- note --><Object><Key> a&amp;&#98;&#x63;<![CDATA[<&amp;>]]> </Key></Object><Quiet/></s3:Delete>`,
    'Delete'
  )
  expect(root.children.map((child) => child.name)).toEqual(['Object', 'Quiet'])
  expect(childText(root.children[0]!, 'Key')).toBe(' a&bc<&amp;> ')
  expect(childText(root, 'Quiet')).toBe('')
  expect(childText(root, 'Absent')).toBeUndefined()
})

test.each([
  ['nothing', ''],
  ['no XML', 'hello'],
  ['another root', '<Other/>'],
  ['two roots', '<Delete/><Delete/>'],
  ['text behind', '<Delete/>x'],
  ['not closed', '<Delete><Object></Delete>'],
  ['a DTD', '<!DOCTYPE Delete [<!ENTITY a "b">]><Delete>&a;</Delete>'],
  ['an entity of its own', '<Delete>&nbsp;</Delete>'],
  ['a bare ampersand', '<Delete>a & b</Delete>'],
  ['a surrogate', '<Delete>&#xD800;</Delete>'],
  ['beyond Unicode', '<Delete>&#x110000;</Delete>'],
  ['too deep', `<Delete>${'<a>'.repeat(5000)}${'</a>'.repeat(5000)}</Delete>`]
])('refused: %s', (_name, source) => {
  expect(() => parseXml(source, 'Delete')).toThrow(expect.objectContaining({ code: 'MalformedXML' }))
})

test('one child where several are not allowed', () => {
  expect(() => childText(parseXml('<A><B/><B/></A>', 'A'), 'B')).toThrow(
    expect.objectContaining({ code: 'MalformedXML' })
  )
})
