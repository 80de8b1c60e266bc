import path from 'node:path'
import ts from 'typescript'

/** Floor of each folder of lib/; '' is lib/ itself (index.ts, fluent.ts). The command line stands on the public API. */
const LIB_FLOORS: Record<string, number> = {
  core: 1,
  native: 2,
  tensor: 3,
  ops: 4,
  autograd: 5,
  nn: 6,
  optim: 6,
  io: 6,
  data: 6,
  amp: 7,
  quant: 7,
  prune: 7,
  parallel: 8,
  tune: 8,
  distill: 8,
  train: 8,
  '': 9,
  cli: 10,
}

const NATIVE_FLOORS: Record<string, number> = { core: 0, cpu: 1, cuda: 1, ops: 2, binding: 3 }

interface Target {
  name: string
  parent: string
}

const folderOf = (file: string, depth: number) => file.split('/').slice(0, -1)[depth] ?? ''

/** One line for every import of `files` (path below the root -> text) that does not go down or stay in its folder. */
export function libViolations(files: Map<string, string>): string[] {
  const found: string[] = []
  for (const [file, text] of files) {
    const folder = folderOf(file, 1)
    const floor = LIB_FLOORS[folder]
    if (floor === undefined) {
      found.push(`${file}: lib/${folder}/ has no floor`)
      continue
    }
    for (const { fileName } of ts.preProcessFile(text).importedFiles) {
      if (fileName === 'kerf' || fileName.startsWith('kerf/') || fileName.startsWith('#lib'))
        found.push(`${file}: imports ${fileName}, its own package`)
      if (!fileName.startsWith('.')) continue
      const target = path.posix.join(path.posix.dirname(file), fileName)
      if (!target.startsWith('lib/')) {
        if (target !== 'package.json') found.push(`${file}: imports ${target}, outside lib/`)
        continue
      }
      // './nn' names the folder's index as './nn/index' does
      const isFolder = files.has(`${target}/index.ts`)
      const other = folderOf(isFolder ? `${target}/index` : target, 1)
      const otherFloor = LIB_FLOORS[other] ?? Number.POSITIVE_INFINITY
      if (other !== folder && otherFloor >= floor)
        found.push(`${file} (floor ${floor}) imports ${target} (${otherFloor})`)
    }
  }
  return found
}

/**
 * The same for the `#include "..."` lines of native/, and what keeps the targets apart from each other: a target's file
 * may include its own folder and those of the rows it builds on, compiled into its own namespace.
 */
export function nativeViolations(files: Map<string, string>, targets: readonly Target[]): string[] {
  const found: string[] = []
  const parents = new Map(targets.map(({ name, parent }) => [name, parent]))
  const buildsOn = (target: string, other: string): boolean => {
    const parent = parents.get(target)
    return target === other || (parent !== undefined && parent !== target && buildsOn(parent, other))
  }
  for (const [file, text] of files) {
    const folder = folderOf(file, 1)
    const floor = NATIVE_FLOORS[folder]
    if (floor === undefined) {
      found.push(`${file}: native/${folder}/ has no floor`)
      continue
    }
    for (const [, included] of text.matchAll(/^\s*#\s*include\s*[<"]([^>"]+)[>"]/gm)) {
      if (!included) continue
      if (/^(napi|node_api|js_native_api)/.test(included) && folder !== 'binding') {
        found.push(`${file}: includes ${included}; only binding/ may`)
      }
      const other = path.posix.join(path.posix.dirname(file), included)
      if (!files.has(other)) continue
      const otherFolder = folderOf(other, 1)
      const otherFloor = NATIVE_FLOORS[otherFolder] ?? Number.POSITIVE_INFINITY
      if (otherFolder !== folder && otherFloor >= floor)
        found.push(`${file} (floor ${floor}) includes ${other} (${otherFloor})`)
      const target = folderOf(other, 2)
      if (parents.has(target) && !buildsOn(folderOf(file, 2), target)) {
        found.push(`${file}: includes ${other}, which belongs to target ${target}`)
      }
    }
    const code = text.replace(/\/\/.*$/gm, '')
    const simd = /\b(_mm(256|512)?_(?!pause)\w+|__m(128|256|512)\w*|__builtin_ia32_\w+|arm_neon\.h)\b/.exec(code)
    if (simd && folder !== 'cpu') found.push(`${file}: ${simd[0]}; intrinsics belong into native/cpu/`)
  }
  return found
}
