// The addon's exports: `ops` (one function per line of ops.def) and the few calls that manage the machine.
#include <napi.h>

#include <string>

#include "../core/debug.h"
#include "../core/features.h"
#include "../core/kernels.h"
#include "../core/pool.h"
#include "../core/tables.gen.h"
#include "../ops/ops.h"
#include "../ops/targets.h"
#include "bind.h"
#include "cuda.h"
#include "probe.h"
#if defined(__linux__)
#include <sys/mman.h>
#endif

#ifndef KERF_BUILDER
#define KERF_BUILDER "unknown"
#endif

namespace kerf {
namespace {

Environment& environment_of(const Napi::CallbackInfo& info) { return *static_cast<Environment*>(info.Data()); }

double number(const Napi::CallbackInfo& info, size_t i) {
  return info.Length() > i && info[i].IsNumber() ? info[i].As<Napi::Number>().DoubleValue() : -1;
}

// setup(target, threads): both optional ('' and 0 mean "choose"). Returns the name of the chosen row.
Napi::Value setup(const Napi::CallbackInfo& info) {
  std::string wanted = info.Length() > 0 && info[0].IsString() ? info[0].As<Napi::String>().Utf8Value() : "";
  char why[160] = {};
  const char* chosen = choose_target(wanted.c_str(), why, sizeof why);
  if (!chosen) throw Napi::Error::New(info.Env(), why);
  double threads = number(info, 1);
  if (threads >= 1) pool_set_threads(static_cast<int>(threads));
  return Napi::String::New(info.Env(), chosen);
}

Napi::Value machine(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto result = Napi::Object::New(env);
  result.Set("builder", KERF_BUILDER);
  result.Set("cpu", cpu_model());
  result.Set("threads", pool_threads());
  result.Set("target", kernels().target);
  auto targets = Napi::Array::New(env);
  for (int i = 0; i < target_count(); i++) {
    TargetInfo row = target_info(i);
    auto entry = Napi::Object::New(env);
    entry.Set("name", row.name);
    entry.Set("features", row.features);
    entry.Set("compiled", row.compiled);
    entry.Set("supported", row.supported);
    targets.Set(static_cast<uint32_t>(i), entry);
  }
  result.Set("targets", targets);
  return result;
}

// debugKernels(on): from now on every command writes a line to stderr (core/debug.h).
Napi::Value debug_kernels_on(const Napi::CallbackInfo& info) {
  set_debug_kernels(info.Length() > 0 && info[0].ToBoolean().Value());
  return info.Env().Undefined();
}

// place(buffer, bytes): the byte offset where a tensor of so many bytes begins: at a 64-byte boundary, or at a 2 MiB one
// where the buffer has room for that. Whole huge pages inside are asked for.
Napi::Value place(const Napi::CallbackInfo& info) {
  void* data = nullptr;
  size_t size = 0;
  if (info.Length() < 1 || napi_get_arraybuffer_info(info.Env(), info[0], &data, &size) != napi_ok)
    throw Napi::TypeError::New(info.Env(), "place: not an ArrayBuffer");
  const double bytes = number(info, 1);
  constexpr uintptr_t kPage = uintptr_t{2} << 20;
  const auto address = reinterpret_cast<uintptr_t>(data);
  const uintptr_t to_page = -address & (kPage - 1);
  const bool paged = bytes >= static_cast<double>(kPage) && static_cast<double>(to_page) + bytes <= static_cast<double>(size);
#if defined(__linux__)
  const uintptr_t from = address + to_page;
  const uintptr_t to = (paged ? from + static_cast<uintptr_t>(bytes) : address + size) & ~(kPage - 1);
  if (to > from) madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);  // a hint: failure changes nothing
#endif
  return Napi::Number::New(info.Env(), static_cast<double>(paged ? to_page : -address & 63));
}

// wait(sequence): blocks this thread until the command has finished.
Napi::Value wait(const Napi::CallbackInfo& info) {
  Environment& e = environment_of(info);
  double sequence = number(info, 0);
  auto queued = e.stream.queued();
  e.stream.wait(sequence >= 0 && sequence < static_cast<double>(queued) ? static_cast<uint64_t>(sequence) : queued);
  return info.Env().Undefined();
}

// watch(sequence): the function given to onFinished is called once the command has finished; until then the event loop
// stays alive.
Napi::Value watch(const Napi::CallbackInfo& info) {
  Environment& e = environment_of(info);
  double sequence = number(info, 0);
  if (e.finished && sequence >= 0) {
    napi_ref_threadsafe_function(info.Env(), e.finished);
    e.stream.watch(static_cast<uint64_t>(sequence));
  }
  return info.Env().Undefined();
}

Napi::Value on_finished(const Napi::CallbackInfo& info) {
  Environment& e = environment_of(info);
  if (e.finished || info.Length() < 1 || !info[0].IsFunction()) throw Napi::TypeError::New(info.Env(), "onFinished: one function, once");
  napi_value name;
  napi_create_string_utf8(info.Env(), "kerf stream", NAPI_AUTO_LENGTH, &name);
  napi_create_threadsafe_function(
      info.Env(), info[0], nullptr, name, 0, 1, nullptr, nullptr, &e,
      [](napi_env env, napi_value callback, void* context, void*) {
        if (!env || !callback) return;  // the environment is going away
        napi_unref_threadsafe_function(env, static_cast<Environment*>(context)->finished);
        napi_value undefined;
        napi_get_undefined(env, &undefined);
        napi_call_function(env, undefined, callback, 0, nullptr, nullptr);
      },
      &e.finished);
  napi_unref_threadsafe_function(info.Env(), e.finished);
  e.stream.set_on_finished(
      [](void* context) { napi_call_threadsafe_function(static_cast<Environment*>(context)->finished, nullptr, napi_tsfn_nonblocking); }, &e);
  // Cleanup hooks run last in, first out: this one joins the stream before the threadsafe function it calls goes away.
  napi_add_env_cleanup_hook(info.Env(), [](void* context) { static_cast<Environment*>(context)->stream.stop(); }, &e);
  return info.Env().Undefined();
}

// The message of the last failed call, and the first error of the commands that ran since takeError.
Napi::Value last_error(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), environment_of(info).last.what); }

Napi::Value take_error(const Napi::CallbackInfo& info) {
  Status status = environment_of(info).stream.take_error();
  if (status.ok()) return info.Env().Null();
  auto result = Napi::Object::New(info.Env());
  result.Set("code", static_cast<int>(status.code));
  result.Set("what", status.what);
  return result;
}

const MatmulCell* cell(const Napi::CallbackInfo& info) {
  double dtype = number(info, 0);
  if (!(dtype >= 0 && dtype < kDTypes)) return nullptr;
  const MatmulCell& found = kernels().matmul[static_cast<int>(dtype)];
  return found.run ? &found : nullptr;
}

// Whether numbers from JavaScript are the sizes of a matrix whose elements can be counted.
bool sizes(double rows, double columns) { return rows >= 0 && columns >= 0 && rows * columns < 9e15; }

// The same where indices are int32.
bool indexed(double rows, double columns, double count) {
  constexpr double kMost = 0x7fffffff;
  return sizes(rows, columns) && rows <= kMost && columns <= kMost && count >= 0 && count <= kMost;
}

// What size() answers, or -1 where it cannot be asked.
template <class Size>
Napi::Value size_or_none(const Napi::CallbackInfo& info, bool valid, Size&& size) {
  return Napi::Number::New(info.Env(), valid ? static_cast<double>(size()) : -1);
}

Napi::Value name_or_null(const Napi::CallbackInfo& info, const char* name) {
  return name ? Napi::Value(Napi::String::New(info.Env(), name)) : info.Env().Null();
}

// packedBytes(dtype, k, n): the size of pack()'s output for the chosen row, or -1 where it has no matmul for the dtype.
Napi::Value packed_bytes(const Napi::CallbackInfo& info) {
  const MatmulCell* found = cell(info);
  double k = number(info, 1), n = number(info, 2);
  return size_or_none(info, found && sizes(k, n), [&] { return found->packed_bytes(static_cast<int64_t>(k), static_cast<int64_t>(n)); });
}

// qpackedBytes(k, n): the size of qpack()'s output for the chosen row.
Napi::Value qpacked_bytes(const Napi::CallbackInfo& info) {
  const QMatmulCell& found = kernels().qmatmul;
  double k = number(info, 0), n = number(info, 1);
  return size_or_none(info, found.run && sizes(k, n), [&] { return found.packed_bytes(static_cast<int64_t>(k), static_cast<int64_t>(n)); });
}

// wpackedBytes(k, n, bits, group, signed, zeros): the size of wpack()'s output for the chosen row.
Napi::Value wpacked_bytes(const Napi::CallbackInfo& info) {
  const WMatmulCell& found = kernels().wmatmul;
  double k = number(info, 0), n = number(info, 1), bits = number(info, 2), group = number(info, 3);
  const bool valid = found.run && sizes(k, n) && (bits == 4 || bits == 8) && group >= 1 && group < 9e15;
  return size_or_none(info, valid, [&] {
    const WeightFormat format{static_cast<int64_t>(bits), static_cast<int64_t>(group), number(info, 4) == 1, number(info, 5) == 1};
    return found.packed_bytes(static_cast<int64_t>(k), static_cast<int64_t>(n), format);
  });
}

// Calls body with the cell that (dtype of the weights, form) name, `none` where the chosen row has none: the first two arguments
// of all functions about sparse weights.
template <class Body>
Napi::Value sparse_cell(const Napi::CallbackInfo& info, Napi::Value none, Body&& body) {
  const double dtype = number(info, 0), form = number(info, 1);
  if (!(dtype >= 0 && dtype <= static_cast<double>(DType::int8_) && form >= 0)) return none;
  const auto at = static_cast<size_t>(form), weights = static_cast<size_t>(dtype);
  if (weights == static_cast<size_t>(DType::int8_)) {
    if (at < size_t{kByteForms} && kernels().spqmatmul[at].run) return body(kernels().spqmatmul[at]);
    return none;
  }
  if (at < size_t{kForms} && kernels().spmatmul[at][weights].run) return body(kernels().spmatmul[at][weights]);
  return none;
}

// sparseRows(dtype, form): up to how many rows of A the form is meant for; 0: the chosen row of kernels does not have it.
Napi::Value sparse_rows(const Napi::CallbackInfo& info) {
  auto number_of = [&](double value) -> Napi::Value { return Napi::Number::New(info.Env(), value); };
  return sparse_cell(info, number_of(0), [&](const auto& cell) { return number_of(static_cast<double>(cell.rows)); });
}

// sparseName(dtype, form): the kernel.
Napi::Value sparse_name(const Napi::CallbackInfo& info) {
  return sparse_cell(info, info.Env().Null(), [&](const auto& cell) { return name_or_null(info, cell.name); });
}

// sparseMeasure(dtype, form, pointers: Int32Array, columns: Int32Array, k): the count that the form's size depends on, or -1
// where the matrix is not of the form.
Napi::Value sparse_measure(const Napi::CallbackInfo& info) {
  const int32_t* arrays[2] = {};
  size_t lengths[2] = {};
  for (size_t i = 0; i < 2; i++) {
    napi_typedarray_type type;
    void* data = nullptr;
    bool typed = false;
    if (info.Length() <= i + 2 || napi_is_typedarray(info.Env(), info[i + 2], &typed) != napi_ok || !typed ||
        napi_get_typedarray_info(info.Env(), info[i + 2], &type, &lengths[i], &data, nullptr, nullptr) != napi_ok || type != napi_int32_array)
      throw Napi::TypeError::New(info.Env(), "sparseMeasure: two Int32Arrays");
    arrays[i] = static_cast<const int32_t*>(data);
  }
  const double k = number(info, 4);
  return sparse_cell(info, Napi::Number::New(info.Env(), -1), [&](const auto& cell) {
    const bool valid = lengths[0] >= 1 && lengths[1] <= 0x7fffffff && k >= 0 && k <= 0x7fffffff;
    const CsrMatrix w{static_cast<int64_t>(lengths[0]) - 1, static_cast<int64_t>(k), static_cast<int64_t>(lengths[1]), arrays[0], arrays[1], nullptr};
    return size_or_none(info, valid, [&] { return cell.measure(w); });
  });
}

// sparseBytes(dtype, form, n, k, count): the size of sppack()'s output.
Napi::Value sparse_bytes(const Napi::CallbackInfo& info) {
  const double n = number(info, 2), k = number(info, 3), count = number(info, 4);
  return sparse_cell(info, Napi::Number::New(info.Env(), -1), [&](const auto& cell) {
    return size_or_none(info, indexed(n, k, count), [&] {
      return cell.packed_bytes(static_cast<int64_t>(n), static_cast<int64_t>(k), static_cast<int64_t>(count));
    });
  });
}

Napi::Value wmatmul_name(const Napi::CallbackInfo& info) { return name_or_null(info, kernels().wmatmul.name); }

Napi::Value qmatmul_name(const Napi::CallbackInfo& info) { return name_or_null(info, kernels().qmatmul.name); }

Napi::Value matmul_name(const Napi::CallbackInfo& info) {
  const MatmulCell* found = cell(info);
  return name_or_null(info, found ? found->name : nullptr);
}

Napi::Value conv_name(const Napi::CallbackInfo& info) {
  const MatmulCell* found = cell(info);
  return name_or_null(info, found ? kernels().conv2d[found - kernels().matmul].name : nullptr);
}

double* make_page(Napi::Env env, int doubles, napi_ref* reference, Napi::Object exports, const char* name) {
  auto page = Napi::Float64Array::New(env, static_cast<size_t>(doubles));
  for (int i = 0; i < doubles; i++) page[static_cast<size_t>(i)] = 0;
  napi_create_reference(env, page, 1, reference);
  exports.Set(name, page);
  return page.Data();
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* e = new Environment;
  napi_set_instance_data(env, e, [](napi_env, void* data, void*) { delete static_cast<Environment*>(data); }, nullptr);
  e->arguments = make_page(env, Environment::kArguments, &e->pages[0], exports, "arguments");
  e->state = make_page(env, Environment::kState, &e->pages[1], exports, "state");
  e->stream.publish_to(e->state);

  auto table = Napi::Object::New(env);
#define OP(name, parameters)                                                            \
  {                                                                                     \
    napi_value function;                                                                \
    napi_create_function(env, #name, NAPI_AUTO_LENGTH, bind<&ops::name>, e, &function); \
    table.Set(#name, function);                                                         \
  }
#include "../core/ops.def"
#undef OP
  exports.Set("ops", table);

  auto set = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name, e));
  };
  set("setup", setup);
  set("machine", machine);
  set("place", place);
  set("wait", wait);
  set("watch", watch);
  set("onFinished", on_finished);
  set("lastError", last_error);
  set("takeError", take_error);
  set("packedBytes", packed_bytes);
  set("matmulName", matmul_name);
  set("convName", conv_name);
  set("qpackedBytes", qpacked_bytes);
  set("qmatmulName", qmatmul_name);
  set("wpackedBytes", wpacked_bytes);
  set("wmatmulName", wmatmul_name);
  set("sparseRows", sparse_rows);
  set("sparseName", sparse_name);
  set("sparseMeasure", sparse_measure);
  set("sparseBytes", sparse_bytes);
  set("probe", probe);
  set("debugKernels", debug_kernels_on);
  export_cuda(env, exports, e);
  exports.Set("tables", kTables);
  return exports;
}

}  // namespace
}  // namespace kerf

static Napi::Object Init(Napi::Env env, Napi::Object exports) { return kerf::init(env, exports); }
NODE_API_MODULE(kerf, Init)
