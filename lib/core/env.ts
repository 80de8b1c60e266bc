/** The only file that reads the environment. All names start with KERF_. */
import { ArgumentError } from './errors'

function threads(): number {
  const text = process.env.KERF_THREADS
  if (text === undefined || text === '') return 0
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1 || value > 256) {
    throw new ArgumentError(`KERF_THREADS: expected a whole number from 1 to 256, got '${text}'`)
  }
  return value
}

export const env = {
  /** KERF_TARGET: the row of kernels to use; '' chooses the strongest one. */
  get target(): string {
    return process.env.KERF_TARGET ?? ''
  },
  /** KERF_THREADS: threads that a kernel may use, 1 to 256; 0 chooses the CPUs of this process. */
  get threads(): number {
    return threads()
  },
  /** KERF_DEBUG=kernels: one line on stderr for every kernel that runs. */
  get debugKernels(): boolean {
    return (process.env.KERF_DEBUG ?? '').split(',').includes('kernels')
  },
  /** KERF_CUDA: '0' does not look for a GPU, 'emulate' takes the emulated one of the tests; otherwise a real one. */
  get cuda(): 'off' | 'emulate' | 'gpu' {
    const wanted = process.env.KERF_CUDA
    return wanted === '0' ? 'off' : wanted === 'emulate' ? 'emulate' : 'gpu'
  },
  /** KERF_NATIVE: path of an addon to load instead of the installed one (a sanitizer build, say). */
  get native(): string | undefined {
    return process.env.KERF_NATIVE || undefined
  },
}
