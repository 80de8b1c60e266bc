/** Reads the values of command line options. What they throw is a usage error. */
import { InvalidArgumentError } from 'commander'
import { dtypes } from '../core/tables.gen'

/** '1024,1x4096x4096' -> [[1024, 1024, 1024], [1, 4096, 4096]]: m x n x k, one number for a cube. */
export function parseShapes(text: string): [number, number, number][] {
  return text.split(',').map((part) => {
    const sizes = part.trim().split('x').map(Number)
    const whole = sizes.every((size) => Number.isSafeInteger(size) && size >= 1 && size <= 1 << 20)
    if (!whole || !/^[\dx\s]+$/.test(part) || (sizes.length !== 1 && sizes.length !== 3)) {
      throw new InvalidArgumentError(`expected shapes such as 1024 or 1x4096x4096 (m x n x k), got '${part}'.`)
    }
    const [m, n = m, k = m] = sizes as [number, number?, number?]
    return [m, n, k]
  })
}

/** 'float32,int4' -> the names: of floats, and of what the weights of the suite int8 are. */
export function parseDTypes(text: string): string[] {
  const names = [...dtypes.filter((d) => d.kind === 'floating').map((d) => d.name), 'int8', 'int4']
  return text.split(',').map((part) => {
    const name = names.find((n) => n === part.trim())
    if (!name) throw new InvalidArgumentError(`expected ${names.join(', ')}, got '${part}'.`)
    return name
  })
}

/** '1,2' -> [1, 2]. */
export function parseThreads(text: string): number[] {
  return text.split(',').map((part) => {
    const threads = Number(part)
    if (!/^\s*\d+\s*$/.test(part) || threads < 1 || threads > 256) {
      throw new InvalidArgumentError(`expected numbers from 1 to 256, got '${part}'.`)
    }
    return threads
  })
}

export function parseMilliseconds(text: string): number {
  const ms = Number(text)
  if (!(ms >= 10 && ms <= 600_000))
    throw new InvalidArgumentError(`expected milliseconds from 10 to 600000, got '${text}'.`)
  return ms
}
