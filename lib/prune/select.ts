/** Exactly so many of the smallest scores, of any number of arrays at once. */
import type { Pauses } from '../core/pauses'

/** Scores, and which of their elements are still kept (1) or already pruned (0). */
export interface Part {
  scores: Float64Array
  keep: Uint8Array
}

/** More scores than this go into buckets before some of them are sorted. */
const SMALL = 1 << 16
/** Elements between two looks at the clock: about a millisecond. */
const CHUNK = 1 << 17

/** A score for every value, with pauses for the event loop. */
export async function scoresOf(
  values: Float32Array,
  pauses: Pauses,
  fn: (value: number, i: number) => number,
): Promise<Float64Array> {
  const scores = new Float64Array(values.length)
  for (let first = 0; first < values.length; first += CHUNK) {
    const last = Math.min(first + CHUNK, values.length)
    for (let i = first; i < last; i++) scores[i] = fn(values[i] as number, i)
    if (pauses.due()) await pauses.take()
  }
  return scores
}

/** Calls `fn` on every kept element, in order. */
async function sweep(
  parts: readonly Part[],
  pauses: Pauses,
  fn: (score: number, keep: Uint8Array, i: number) => void,
): Promise<void> {
  for (const { scores, keep } of parts) {
    for (let first = 0; first < keep.length; first += CHUNK) {
      const last = Math.min(first + CHUNK, keep.length)
      for (let i = first; i < last; i++) if (keep[i] === 1) fn(scores[i] as number, keep, i)
      if (pauses.due()) await pauses.take()
    }
  }
}

const float = new Float32Array(1)
const bits = new Uint32Array(float.buffer)

/** One of 2^16 buckets, never a lower one for a larger score: the upper half of its bits as a float32. */
function bucketOf(score: number): number {
  float[0] = score + 0 // -0 is no smaller than 0
  const b = bits[0] as number
  return (b & 0x80000000 ? ~b : b | 0x80000000) >>> 16
}

/**
 * Prunes until exactly `count` elements of all parts together are pruned, those pruned before included; nothing when there
 * are as many already. The smallest scores go first; of equal ones the later, by part and index.
 */
export async function pruneSmallest(parts: readonly Part[], count: number, pauses: Pauses): Promise<void> {
  const total = parts.reduce((n, { keep }) => n + keep.length, 0)
  const counts = total > SMALL ? new Float64Array(1 << 16) : null
  let kept = 0
  await sweep(parts, pauses, (score) => {
    kept++
    if (counts) {
      const bucket = bucketOf(score)
      counts[bucket] = (counts[bucket] as number) + 1
    }
  })
  const more = count - (total - kept)
  if (more <= 0) return
  // The bucket that the last score to be pruned is in, and how many are in lower ones.
  let below = 0
  let bucket = -1
  if (counts) for (bucket = 0; below + (counts[bucket] as number) < more; bucket++) below += counts[bucket] as number
  const candidates = new Float64Array(counts ? (counts[bucket] as number) : kept)
  let found = 0
  await sweep(parts, pauses, (score) => {
    if (counts === null || bucketOf(score) === bucket) candidates[found++] = score
  })
  candidates.sort()
  const threshold = candidates[more - below - 1] as number
  const smaller = below + candidates.indexOf(threshold)
  let spared = candidates.reduce((n, score) => (score === threshold ? n + 1 : n), 0) - (more - smaller)
  await sweep(parts, pauses, (score, keep, i) => {
    if (score < threshold || (score === threshold && spared-- <= 0)) keep[i] = 0
  })
}

/** Prunes [first, last) until no more than the `n` largest scores are kept; of equal ones the earlier. */
export function keepLargest({ scores, keep }: Part, first: number, last: number, n: number): void {
  let kept = 0
  for (let i = first; i < last; i++) kept += keep[i] as number
  for (; kept > n; kept--) {
    let least = -1
    for (let i = first; i < last; i++)
      if (keep[i] === 1 && (least < 0 || (scores[i] as number) <= (scores[least] as number))) least = i
    keep[least] = 0
  }
}
