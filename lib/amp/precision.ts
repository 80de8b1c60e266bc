/**
 * Which op runs in which precision: the lists of PyTorch's autocast, by the names of kerf's ops. What is not here computes
 * in the promoted dtype of its inputs, which is what its list of promoting ops (cat, stack, ...) asks for.
 */

/** Products: nearly all of the arithmetic, and float32 sums inside. Attention is made of them. */
export const lowerOps = ['matmul', 'linear', 'conv1d', 'conv2d', 'convTranspose2d', 'lstm', 'gru', 'rnn'] as const

/**
 * Functions whose results leave a 16-bit float's range or that lose its digits: exponentials and powers, sums over many
 * elements, and what is made of both. variance and std are ours: they are norms without the root and with the mean off.
 */
export const float32Ops = [
  'exp',
  'log',
  'log1p',
  'pow',
  'rsqrt',
  'sum',
  'cumsum',
  'variance',
  'std',
  'softmax',
  'logSoftmax',
  'layerNorm',
  'rmsNorm',
  'batchNorm',
  'crossEntropy',
  'nllLoss',
  'mseLoss',
  'l1Loss',
  'klDiv',
  'binaryCrossEntropyWithLogits',
] as const

export const precision: ReadonlyMap<string, 'lower' | 'float32'> = new Map([
  ...lowerOps.map((op) => [op, 'lower'] as const),
  ...float32Ops.map((op) => [op, 'float32'] as const),
])
