#include "ceilings.h"
#include <immintrin.h>
#include <time.h>

namespace lab {

double now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

static volatile float g_sink;
const char* sink() { return g_sink == 42.0f ? "!" : ""; }

// kChains independent chains: more than latency x throughput (2 x 6 for vdpbf16ps), and no spill of registers.
template <int kChains, class V, class Step>
static double burst(double flops_per_step, Step step, V zero) {
  V acc[kChains];
#pragma GCC unroll 32
  for (int j = 0; j < kChains; j++) acc[j] = zero + static_cast<float>(j);  // equal chains would be merged
  constexpr int rounds = 50'000;
  double best = 1e30;
  for (int repeat = 0; repeat < 3; repeat++) {
    double start = now_ns();
    for (int i = 0; i < rounds; i++) {
#pragma GCC unroll 32
      for (int j = 0; j < kChains; j++) {
        acc[j] = step(acc[j]);
        asm volatile("" : "+v"(acc[j]));  // in a register, one after the other
      }
    }
    double ns = now_ns() - start;
    best = ns < best ? ns : best;
  }
#pragma GCC unroll 32
  for (int j = 1; j < kChains; j++) acc[0] += acc[j];
  g_sink = acc[0][0];
  return flops_per_step * kChains * rounds / best;
}

double peak_f32_zmm() {
  __m512 x = _mm512_set1_ps(1e-6f);
  return burst<24, __m512>(32, [=](__m512 a) { return _mm512_fmadd_ps(x, x, a); }, _mm512_setzero_ps());
}
double peak_f32_ymm() {
  __m256 x = _mm256_set1_ps(1e-6f);
  return burst<12, __m256>(16, [=](__m256 a) { return _mm256_fmadd_ps(x, x, a); }, _mm256_setzero_ps());
}
double peak_bf16_zmm() {
  __m512bh x = (__m512bh)_mm512_set1_epi32(0x3f803f80);
  return burst<24, __m512>(64, [=](__m512 a) { return _mm512_dpbf16_ps(a, x, x); }, _mm512_setzero_ps());
}

// Chains of int32 through a float vector type, so that burst() can add them up.
double peak_int8_zmm() {
  __m512i x = _mm512_set1_epi8(1);
  return burst<24, __m512>(128, [=](__m512 a) { return _mm512_castsi512_ps(_mm512_dpbusd_epi32(_mm512_castps_si512(a), x, x)); }, _mm512_setzero_ps());
}
double peak_int8_ymm() {
  __m256i x = _mm256_set1_epi8(1);
  return burst<12, __m256>(64, [=](__m256 a) { return _mm256_castsi256_ps(_mm256_dpbusd_avx_epi32(_mm256_castps_si256(a), x, x)); }, _mm256_setzero_ps());
}

double read_gbps(const void* data, size_t bytes) {
  const char* p = static_cast<const char*>(data);
  __m512i sum[8] = {};
  double start = now_ns();
  // four streams, as a matrix kernel with several panels would have
  const size_t quarter = bytes / 4 / 512 * 512;
  for (size_t i = 0; i < quarter; i += 128) {
#pragma GCC unroll 4
    for (int s = 0; s < 4; s++) {
      const char* q = p + s * quarter + i;
      _mm_prefetch(q + 2048, _MM_HINT_T0);
      _mm_prefetch(q + 2048 + 64, _MM_HINT_T0);
      sum[2 * s] = _mm512_xor_si512(sum[2 * s], _mm512_loadu_si512(q));
      sum[2 * s + 1] = _mm512_xor_si512(sum[2 * s + 1], _mm512_loadu_si512(q + 64));
    }
  }
  double ns = now_ns() - start;
  for (int i = 1; i < 8; i++) sum[0] = _mm512_xor_si512(sum[0], sum[i]);
  g_sink = static_cast<float>(_mm512_reduce_add_epi32(sum[0]));
  return static_cast<double>(quarter) * 4 / ns;
}

}  // namespace lab
