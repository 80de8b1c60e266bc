/**
 * This thread's command stream, seen from JavaScript: what is in flight, waiting for it, and keeping the memory of
 * queued commands alive.
 *
 * The bytes of tensors are JavaScript ArrayBuffers, which the garbage collector frees even inside a synchronous loop
 * (finalizers never run there). A queued command holds raw pointers, so its buffers are listed here until the stream
 * has passed it; every call trims the list.
 */
import { DeviceError, KerfError, OutOfMemoryError } from '../core/errors'
import { addon, type Failure, type Memory } from './load'

const QUEUED = 0
const FINISHED = 1
const FAILED = 2
const state = addon.state

/** Bytes that queued commands may keep alive before the producer has to wait. */
const MAX_BYTES_IN_FLIGHT = 1 << 30

interface Flight {
  sequence: number
  buffers: Memory[]
  bytes: number
}

let flights: Flight[] = []
let head = 0
let bytesInFlight = 0
let lastQueued = 0

/** True when every command has finished. */
export function idle(): boolean {
  return state[QUEUED] === state[FINISHED]
}

/** Called after every op: when it was queued rather than run, its buffers stay alive until it has finished. */
export function keepInFlight(...buffers: Memory[]): void {
  const queued = state[QUEUED] as number
  if (queued === lastQueued) return
  lastQueued = queued
  trim()
  const bytes = (buffers[0] as ArrayBuffer).byteLength
  flights.push({ sequence: queued, buffers, bytes })
  bytesInFlight += bytes
  while (bytesInFlight > MAX_BYTES_IN_FLIGHT && head < flights.length) {
    addon.wait((flights[head] as Flight).sequence)
    trim()
  }
}

function trim(): void {
  const finished = state[FINISHED] as number
  while (head < flights.length && (flights[head] as Flight).sequence <= finished) {
    bytesInFlight -= (flights[head] as Flight).bytes
    head++
  }
  if (head === flights.length) {
    flights = []
    head = 0
  } else if (head > 512) {
    flights = flights.slice(head)
    head = 0
  }
}

class StreamRangeError extends KerfError {
  constructor(message: string) {
    super('ERR_RANGE', message)
  }
}

function throwIfFailed(): void {
  if (state[FAILED] === 0) return
  const error = addon.takeError()
  if (!error) return
  throw failure(error)
}

/** What commands report, as an error. */
export function failure({ code, what }: Failure): KerfError {
  if (code === 4) return new StreamRangeError(what)
  return code === 3 ? new OutOfMemoryError(what) : new DeviceError(what)
}

/** Waits in place until everything enqueued so far has run; throws what a command reported. */
export function syncBlocking(): void {
  if (!idle()) addon.wait(state[QUEUED] as number)
  trim()
  throwIfFailed()
}

interface Waiter {
  sequence: number
  resolve: () => void
}

const waiters: Waiter[] = []

addon.onFinished(() => {
  const finished = state[FINISHED] as number
  let done = 0
  while (done < waiters.length && (waiters[done] as Waiter).sequence <= finished) done++
  const ready = waiters.splice(0, done)
  if (waiters.length > 0) addon.watch((waiters[0] as Waiter).sequence)
  for (const waiter of ready) waiter.resolve()
})

/** After this many milliseconds without a turn of the event loop, a barrier takes one even if nothing is in flight. */
const TURN_MS = 10
let lastTurn = performance.now()

/** Waits, without blocking the event loop, until everything enqueued so far has run; rejects with what failed. */
export async function sync(): Promise<void> {
  if (idle()) {
    // A loop that awaits only finished work would otherwise starve timers and I/O: microtasks run first.
    if (performance.now() - lastTurn > TURN_MS) {
      await new Promise<void>((resolve) => setImmediate(resolve))
      lastTurn = performance.now()
    }
  } else {
    const sequence = state[QUEUED] as number
    await new Promise<void>((resolve) => {
      waiters.push({ sequence, resolve })
      if (waiters.length === 1) addon.watch(sequence)
    })
    lastTurn = performance.now()
  }
  trim()
  throwIfFailed()
}
