// Compiles and runs emulated kernels: programs of one translation unit, each compiled once a test file.
import { execFile, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import t from 'tap'

export const root = path.resolve(__dirname, '..', '..')

/** Why emulated kernels cannot run here; false if they can. The emulator switches stacks in x86-64 assembly. */
export const noEmulator =
  process.arch !== 'x64' ? 'not an x64 CPU' : spawnSync('g++', ['--version']).status !== 0 && 'no g++'

export const scratch = mkdtempSync(path.join(tmpdir(), 'kerf-cuda-'))
t.teardown(() => rmSync(scratch, { recursive: true, force: true }))

/** Resolves with the exit code, what was printed, and what went to stderr. */
export function run(
  command: string,
  args: string[],
  cwd = root,
  environment: Record<string, string> = {},
): Promise<{ code: number; text: string; errors: string }> {
  return new Promise((resolve) => {
    const env = { ...process.env, ...environment }
    execFile(command, args, { cwd, env, maxBuffer: 1 << 24 }, (error, text, errors) => {
      resolve({ code: error ? Number(error.code ?? 1) || 1 : 0, text, errors })
    })
  })
}

/** Compiles test/cuda/`source` against the kernels below `tree`; -O1: compiling and running take least together. */
export async function compile(source: string, tree = root, name = 'program', ...more: string[]): Promise<string> {
  const program = path.join(scratch, name)
  const flags = ['-std=c++20', '-O1', '-Wall', '-Wextra', '-Wno-unknown-pragmas', '-I', tree]
  const includes = ['-I', path.join(root, 'test', 'cuda', 'emulator')]
  const built = await run('g++', [
    ...flags,
    ...more,
    ...includes,
    path.join(root, 'test', 'cuda', source),
    '-o',
    program,
  ])
  if (built.code !== 0) throw new Error(`g++ ${source}: ${built.errors}`)
  return program
}
