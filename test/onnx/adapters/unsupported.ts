// Ops of ONNX that kerf has nothing for, by reason.
const byReason: Record<string, string> = {
  'kerf gives the sums of bytes or a float layer, no convolution that requantizes': 'QLinearConv',
  'kerf has no unpooling and no local response normalisation': 'MaxUnpool LRN',
  'kerf has no such elementwise function': 'Acos Acosh Asin Asinh Atan Atanh Mod BitShift',
  'kerf has no product reduction': 'ReduceProd',
  'kerf does not sort or select by value': 'TopK Unique NonZero Compress NonMaxSuppression',
  'kerf interpolates whole images only': 'GridSample RoiAlign',
  'kerf has no such linear algebra': 'Einsum Det',
  'kerf has no signal processing': 'DFT STFT MelWeightMatrix',
  'kerf has no such optimizer': 'Adagrad',
  "the result depends on numpy's random numbers": 'Bernoulli',
  'the expected values take pi for 3.1415': 'HannWindow HammingWindow BlackmanWindow',
  'metadata: nothing is computed': 'Shape Size',
  'control flow and sequences': 'If Loop Scan SequenceInsert SequenceMap OptionalGetElement OptionalHasElement',
  'strings and text': 'StringNormalizer TfIdfVectorizer',
}

/** op_type -> why there is no adapter. */
export const unsupported: ReadonlyMap<string, string> = new Map(
  Object.entries(byReason).flatMap(([reason, ops]) => ops.split(' ').map((op): [string, string] => [op, reason])),
)

const truncated = 'the expected bfloat16 are truncated; kerf rounds to nearest, ties to even'

/** Cases of version 1.12 whose expected values are not what the op's definition gives, and why. */
export const misstated: ReadonlyMap<string, string> = new Map([
  ['test_adam_multiple', 'the expected values come from an epsilon of 0.01, which the node does not have'],
  ['test_cast_FLOAT_to_BFLOAT16', truncated],
  ['test_castlike_FLOAT_to_BFLOAT16', truncated],
  ['test_castlike_FLOAT_to_BFLOAT16_expanded', truncated],
])
