// Reads a cubin (an ELF file of machine code for one GPU architecture) as far as the gates need it: which instructions
// a kernel consists of. On all architectures since sm_70 an instruction is 16 bytes, its opcode the low 12 bits.

/** Opcodes that the gates look at; the same on sm_80, sm_90 and sm_120. */
const OPCODES: Record<number, string> = {
  547: 'FFMA',
  567: 'IMMA',
  572: 'HMMA',
  903: 'STL',
  904: 'STS',
  1460: 'UTMALDG',
  2107: 'LDSM',
  2433: 'LDG',
  2435: 'LDL',
  2436: 'LDS',
  2438: 'STG',
  2504: 'USETMAXREG',
  2544: 'HGMMA',
  2545: 'IGMMA',
  2845: 'BAR',
  4014: 'LDGSTS',
}

export interface Kernel {
  /** Mangled. */
  name: string
  /** Name or hexadecimal opcode of every instruction, in order. */
  instructions: string[]
}

/** The kernels of a cubin: its sections `.text.<name>`. */
export function kernelsOf(cubin: Buffer): Kernel[] {
  if (cubin.readUInt32BE(0) !== 0x7f454c46 || cubin[4] !== 2 || cubin[5] !== 1)
    throw new Error('not a 64-bit little-endian ELF file')
  const table = Number(cubin.readBigUInt64LE(0x28))
  const entryBytes = cubin.readUInt16LE(0x3a)
  const section = (index: number) => {
    const at = table + index * entryBytes
    const offset = Number(cubin.readBigUInt64LE(at + 24))
    return { name: cubin.readUInt32LE(at), offset, size: Number(cubin.readBigUInt64LE(at + 32)) }
  }
  const names = section(cubin.readUInt16LE(0x3e))
  const kernels: Kernel[] = []
  for (let index = 0; index < cubin.readUInt16LE(0x3c); index++) {
    const { name: nameAt, offset, size } = section(index)
    const start = names.offset + nameAt
    const name = cubin.toString('latin1', start, cubin.indexOf(0, start))
    if (!name.startsWith('.text.')) continue
    const instructions: string[] = []
    for (let at = offset; at < offset + size; at += 16) {
      const opcode = cubin.readUInt16LE(at) & 0xfff
      instructions.push(OPCODES[opcode] ?? `0x${opcode.toString(16)}`)
    }
    kernels.push({ name: name.slice('.text.'.length), instructions })
  }
  return kernels
}

/** How often each named instruction occurs. */
export function histogram({ instructions }: Kernel): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const name of instructions) counts[name] = (counts[name] ?? 0) + 1
  return counts
}
