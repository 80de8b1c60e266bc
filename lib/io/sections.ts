/** How a tensor's bytes may lie in a compressed file (docs/adr/0008-compressed-files.md). */

/**
 * - `raw`: as they are.
 * - `deflate`: a raw deflate stream.
 * - `codebook`: the distinct elements and a Huffman code word for each element.
 * - `sparse`: for each non-zero the number of zeros before it in a Huffman code; the non-zeros as they are.
 * - `sparse-codebook`: the same, and the non-zeros as in `codebook`.
 */
export type TensorEncoding = 'raw' | 'deflate' | 'codebook' | 'sparse' | 'sparse-codebook'

export const tensorEncodings: readonly TensorEncoding[] = ['raw', 'deflate', 'codebook', 'sparse', 'sparse-codebook']

/**
 * Bytes of a tensor per byte of its section, at most: deflate's own limit (258 bytes from 2 bits), here of every
 * encoding, so that what a file makes a reader allocate is bounded by its size.
 */
export const MAX_EXPANSION = 1032
