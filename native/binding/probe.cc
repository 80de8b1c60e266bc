#include "probe.h"

#include <atomic>
#include <string>

#include "../core/pool.h"
#include "../ops/targets.h"

namespace kerf {
namespace {

constexpr int kShares = 32;                       // a thread: a late one leaves its shares to the others
constexpr int64_t kReadShare = int64_t{1} << 18;  // bytes: a few times what the prefetch runs ahead

double peak(PeakCell cell, int64_t rounds) {
  int64_t shares = pool_threads() > 1 ? int64_t{kShares} * pool_threads() : 1;
  int64_t each = (rounds * pool_threads() + shares - 1) / shares;
  std::atomic<double> done = 0;
  parallel(shares, [&](int64_t) { done.fetch_add(cell(each)); });
  return done;
}

std::atomic<float> g_sink;  // so that what was read is used

double read(ReadCell cell, const char* data, int64_t bytes) {
  bytes -= bytes % 4096;
  if (pool_threads() == 1) {
    g_sink = cell(bytes, data);
    return static_cast<double>(bytes);
  }
  parallel((bytes + kReadShare - 1) / kReadShare, [&](int64_t share) {
    int64_t from = share * kReadShare;
    g_sink = cell(from + kReadShare < bytes ? kReadShare : bytes - from, data + from);
  });
  return static_cast<double>(bytes);
}

}  // namespace

Napi::Value probe(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto number = [&](size_t i) { return info.Length() > i && info[i].IsNumber() ? info[i].As<Napi::Number>().DoubleValue() : 0; };
  std::string kind = info.Length() > 0 && info[0].IsString() ? info[0].As<Napi::String>().Utf8Value() : "";
  const Kernels& row = kernels();
  double amount = number(1);
  if (!(amount >= 1 && amount <= 1e12)) throw Napi::RangeError::New(env, "probe: the amount must be between 1 and 1e12");
  auto whole = static_cast<int64_t>(amount);
  if (kind == "fma") return Napi::Number::New(env, row.fma_peak ? peak(row.fma_peak, whole) : -1);
  if (kind == "bf16dot") return Napi::Number::New(env, row.bf16_dot_peak ? peak(row.bf16_dot_peak, whole) : -1);
  if (kind == "int8dot") return Napi::Number::New(env, row.int8_dot_peak ? peak(row.int8_dot_peak, whole) : -1);
  if (kind != "read") throw Napi::TypeError::New(env, "probe: the kind must be 'fma', 'bf16dot', 'int8dot' or 'read'");
  void* data = nullptr;
  size_t bytes = 0;
  if (info.Length() < 3 || napi_get_arraybuffer_info(env, info[2], &data, &bytes) != napi_ok)
    throw Napi::TypeError::New(env, "probe: 'read' needs an ArrayBuffer");
  double offset = number(3);
  if (!(offset >= 0 && offset + amount <= static_cast<double>(bytes)))
    throw Napi::RangeError::New(env, "probe: the bytes reach outside the buffer");
  if (!row.read) return Napi::Number::New(env, -1);
  return Napi::Number::New(env, read(row.read, static_cast<const char*>(data) + static_cast<int64_t>(offset), whole));
}

}  // namespace kerf
