// Distillation in plain float64: what the tests compare with shares nothing with kerf but the inputs.
import { tensor } from 'kerf'
import { uniformGenerator } from '#lib/core/rng'

export type Rows = number[][]

/** n x c numbers from -size to size, already rounded to float32. */
export function logits(seed: number, n: number, c: number, size = 3): Rows {
  const random = uniformGenerator(seed)
  return Array.from({ length: n }, () => Array.from({ length: c }, () => Math.fround(size * (2 * random() - 1))))
}

export const labelsOf = (seed: number, n: number, c: number): number[] => {
  const random = uniformGenerator(seed)
  return Array.from({ length: n }, () => Math.floor(random() * c))
}

export const asTensor = (rows: Rows, requiresGrad = false) => tensor(rows, { requiresGrad })
export const asLabels = (labels: number[]) => tensor(labels, { dtype: 'int64' })

export function logSoftmax(row: number[], temperature = 1): number[] {
  const scaled = row.map((z) => z / temperature)
  const most = Math.max(...scaled)
  const sum = scaled.reduce((total, z) => total + Math.exp(z - most), 0)
  return scaled.map((z) => z - most - Math.log(sum))
}

/** The mean of the teachers' softened probabilities. */
export function softened(teachers: Rows[], row: number, temperature: number): number[] {
  const each = teachers.map((rows) => logSoftmax(rows[row] as number[], temperature).map(Math.exp))
  return (each[0] as number[]).map((_, j) => each.reduce((sum, p) => sum + (p[j] as number), 0) / each.length)
}

export function soft(student: Rows, teachers: Rows[], temperature: number): number {
  let total = 0
  for (const [i, row] of student.entries()) {
    const q = logSoftmax(row, temperature)
    for (const [j, p] of softened(teachers, i, temperature).entries())
      if (p > 0) total += p * (Math.log(p) - (q[j] as number))
  }
  return (temperature ** 2 * total) / student.length
}

export function hard(student: Rows, labels: number[]): number {
  return -student.reduce((sum, row, i) => sum + (logSoftmax(row)[labels[i] as number] as number), 0) / labels.length
}

/** d soft / d student: T * (q - p) / n. */
export function softGrad(student: Rows, teachers: Rows[], temperature: number): number[] {
  return student.flatMap((row, i) => {
    const p = softened(teachers, i, temperature)
    return logSoftmax(row, temperature).map((q, j) => (temperature * (Math.exp(q) - (p[j] as number))) / student.length)
  })
}
