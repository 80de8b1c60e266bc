/**
 * JSON.parse for files that may be hostile: refuses what JSON.parse lets pass but readers disagree on, namely keys given
 * twice and numbers that are not plain whole numbers (1.0, 1e3, -0).
 */

const STRUCTURE = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[-\d][-+.\deE]*/g

/**
 * @param fail receives what is wrong, with the key it belongs to
 * @returns the parsed value; its objects have own properties only (`__proto__` is a key like others)
 */
export function parseStrictJson(text: string, fail: (why: string, cause?: unknown) => never): unknown {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    fail(`the header is not JSON: ${(cause as Error).message}`, cause)
  }
  checkTokens(text, fail)
  return value
}

/** The text is known to be JSON: a string in front of a colon is a key, and brackets match. */
function checkTokens(text: string, fail: (why: string) => never): void {
  const open: (Set<string> | null)[] = []
  let last: string | null = null
  let key = ''
  STRUCTURE.lastIndex = 0
  for (const [token] of text.matchAll(STRUCTURE)) {
    if (token[0] === '"') last = token
    else if (token === '{') open.push(new Set())
    else if (token === '[') open.push(null)
    else if (token === '}' || token === ']') open.pop()
    else if (token === ':') {
      key = JSON.parse(last as string) as string
      const keys = open.at(-1) as Set<string>
      if (keys.has(key)) fail(`key ${JSON.stringify(key)} is given twice`)
      keys.add(key)
    } else if (token !== ',' && !/^(0|[1-9]\d*)$/.test(token))
      fail(`the number ${token} at key ${JSON.stringify(key)} is not a plain whole number`)
  }
}
