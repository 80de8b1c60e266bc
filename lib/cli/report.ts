/** What `kerf bench --json` prints. Times are microseconds a call. */

export interface Timing {
  best: number
  median: number
  /** How many bursts were timed, and how many calls each of them made. */
  bursts: number
  calls: number
}

export interface PeerTiming extends Timing {
  name: string
  /** What it ran, where there are several ways: 'MatMulNBits, accuracy_level 4'. */
  variant?: string
  /** 'preallocated': writes into an output of the caller's; 'fresh': allocates one a call, as it does by default. */
  output: 'preallocated' | 'fresh'
  /** Peer's time divided by kerf's: above 1 kerf is faster. */
  ratioBest: number
  ratioMedian: number
}

/** What kerf itself takes for the same work without the thing that the row is about: in float32, say. */
export interface Baseline extends Timing {
  name: string
  /** Baseline's time divided by the row's: above 1 the row is faster. */
  ratioBest: number
  ratioMedian: number
}

export interface Rate {
  /** Floating-point operations, integer operations, bytes. */
  unit: 'GFLOP/s' | 'GOP/s' | 'GB/s'
  best: number
  median: number
}

/** The machine's best at the same thing, measured between the bursts of the row. */
export interface Peak extends Rate {
  kind: 'fma' | 'bf16dot' | 'int8dot' | 'read'
  /** The row's rate in percent of the peak's: best of best, median of median. */
  percentBest: number
  percentMedian: number
}

export interface BenchRow extends Timing {
  suite: string
  name: string
  /** Why it is measured. */
  why: string
  /** float32, float16, bfloat16, or what the weights are: int8, int4. */
  dtype: string
  /** [m, n, k] of a product. */
  shape: number[]
  threads: number
  /** The row of kernels, and name@target where one kernel does the work. */
  target: string
  kernel: string | null
  rate: Rate | null
  /** The ceiling that the rate is held against comes first; few rows have the arithmetic's as well. */
  peaks: Peak[]
  baseline: Baseline | null
  peers: PeerTiming[]
  /** Such as why a peer is missing. */
  notes: string[]
}

/** How late the event loop ran while products were computed, in milliseconds. */
export interface LoopRow {
  suite: 'loop'
  name: string
  why: string
  threads: number
  calls: number
  p50: number
  p99: number
  max: number
}

export interface BenchReport {
  kerf: string
  date: string
  machine: { cpu: string; cores: number; platform: string; node: string; target: string; builder: string }
  peers: Record<string, string>
  rows: BenchRow[]
  loop: LoopRow[]
}

export interface BenchOptions {
  suites: string[]
  /** [m, n, k] each; empty for the suites' own. */
  shapes: [number, number, number][]
  dtypes: string[]
  /** Empty for one and all. */
  threads: number[]
  peer: string | null
  /** Milliseconds for each contender of a row; the rest follows from it. */
  budgetMs: number
}

/** Told before each row: which one, of how many. */
export type Progress = (done: number, total: number, name: string) => void

/** What dist/bench/index.js exports: the suites live beside the library, not in it. */
export interface BenchModule {
  suites: Record<string, string>
  run(options: BenchOptions, progress: Progress): Promise<BenchReport>
}
