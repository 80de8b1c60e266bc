#include "cuda.h"

#include <atomic>
#include <cstdio>
#include <string>
#include <unordered_set>
#if defined(__linux__)
#include <dlfcn.h>
#endif

namespace kerf {
namespace {

// One library a process; each environment (the main thread, every worker) knows the memory that it made.
std::atomic<const CudaLibrary*> g_library{nullptr};
thread_local std::unordered_set<const CudaMemory*> t_memory;

struct Pending {
  napi_deferred deferred;
  napi_threadsafe_function call;
  Status status;
};

Environment& environment_of(const Napi::CallbackInfo& info) { return *static_cast<Environment*>(info.Data()); }

double number(const Napi::CallbackInfo& info, size_t i) {
  return info.Length() > i && info[i].IsNumber() ? info[i].As<Napi::Number>().DoubleValue() : -1;
}

// cudaOpen(path): loads the library, once; answers null, or why there is no device.
Napi::Value open(const Napi::CallbackInfo& info) {
  auto why = [&](const char* text) -> Napi::Value { return Napi::String::New(info.Env(), text); };
#if defined(__linux__)
  if (!g_library) {
    const std::string path = info.Length() > 0 && info[0].IsString() ? info[0].As<Napi::String>().Utf8Value() : "";
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) return why(dlerror());
    auto function = reinterpret_cast<kerf_cuda_library_function>(dlsym(handle, "kerf_cuda_library"));
    if (!function) return why("the library has no kerf_cuda_library");
    const CudaLibrary* library = function();
    if (std::string(library->tables) != kTables) return why("the library was built from other tables: run npm run build:cuda");
    g_library = library;
  }
  char text[200] = "";
  return g_library.load()->count(text, sizeof text) > 0 ? info.Env().Null() : why(text);
#else
  return why("CUDA runs on Linux only");
#endif
}

// cudaDevices(): [{name, bytes, capability}].
Napi::Value devices(const Napi::CallbackInfo& info) {
  auto result = Napi::Array::New(info.Env());
  const CudaLibrary* library = g_library;
  char text[200];
  const int32_t count = library ? library->count(text, sizeof text) : 0;
  for (int32_t i = 0; i < count; i++) {
    CudaCard card;
    if (!library->describe(i, &card).ok()) break;
    auto entry = Napi::Object::New(info.Env());
    entry.Set("name", card.name);
    entry.Set("bytes", static_cast<double>(card.bytes));
    entry.Set("capability", std::to_string(card.major) + "." + std::to_string(card.minor));
    result.Set(static_cast<uint32_t>(i), entry);
  }
  return result;
}

Status no_library() { return Status::error(Code::bug, "no CUDA library is loaded"); }

// cudaAllocate(device, bytes): memory of a GPU, or undefined and a status.
Napi::Value allocate(const Napi::CallbackInfo& info) {
  const CudaLibrary* library = g_library;
  const double device = number(info, 0), bytes = number(info, 1);
  auto* memory = new CudaMemory{nullptr, 0, static_cast<int32_t>(device)};
  Status status = !library ? no_library()
                  : !(device >= 0 && device < 64 && bytes >= 0 && bytes < 9e15)
                      ? Status::error(Code::bug, "cudaAllocate: bad device or size")
                      : library->allocate(memory->device, static_cast<size_t>(bytes), &memory->data);
  if (!status.ok()) {
    delete memory;
    environment_of(info).report(status);
    return info.Env().Undefined();
  }
  memory->bytes = static_cast<size_t>(bytes);
  napi_value result;
  const auto free = [](napi_env env, void* data, void*) {
    auto* memory = static_cast<CudaMemory*>(data);
    g_library.load()->release(memory->device, memory->data);
    int64_t now;
    napi_adjust_external_memory(env, -static_cast<int64_t>(memory->bytes), &now);
    t_memory.erase(memory);
    delete memory;
  };
  if (napi_create_external(info.Env(), memory, free, nullptr, &result) != napi_ok) {
    free(info.Env(), memory, nullptr);
    return info.Env().Undefined();
  }
  t_memory.insert(memory);
  int64_t now;
  napi_adjust_external_memory(info.Env(), static_cast<int64_t>(bytes), &now);
  environment_of(info).report(Status{});
  return Napi::Value(info.Env(), result);
}

// A piece of an ArrayBuffer and one of a GPU's memory of the same size, both inside.
Status piece(const Napi::CallbackInfo& info, const CudaMemory*& memory, size_t& at, char*& host, size_t& bytes) {
  void* data = nullptr;
  size_t size = 0;
  memory = info.Length() > 0 ? cuda_memory(info.Env(), info[0]) : nullptr;
  const double from = number(info, 1), start = number(info, 3), count = number(info, 4);
  if (!memory || info.Length() < 5 || napi_get_arraybuffer_info(info.Env(), info[2], &data, &size) != napi_ok)
    return Status::error(Code::bug, "a copy needs memory of a device and an ArrayBuffer");
  if (!(from >= 0 && start >= 0 && count >= 0 && from + count <= static_cast<double>(memory->bytes) &&
        start + count <= static_cast<double>(size)))
    return Status::error(Code::bug, "a copy reaches outside of its memory");
  at = static_cast<size_t>(from);
  host = static_cast<char*>(data) + static_cast<size_t>(start);
  bytes = static_cast<size_t>(count);
  return Status{};
}

// cudaUpload(memory, offset, buffer, offset, bytes), cudaDownload(the same): between an ArrayBuffer and a GPU, in stream order.
template <bool up>
Napi::Value transfer(const Napi::CallbackInfo& info) {
  const CudaMemory* memory = nullptr;
  size_t at = 0, bytes = 0;
  char* host = nullptr;
  Status status = piece(info, memory, at, host, bytes);
  if (status.ok()) {
    const CudaLibrary* library = g_library;
    char* there = static_cast<char*>(memory->data) + at;
    status = up ? library->upload(memory->device, there, host, bytes) : library->download(memory->device, host, there, bytes);
  }
  environment_of(info).report(status);
  return info.Env().Undefined();
}

// cudaWait(device): blocks until everything enqueued there has run.
Napi::Value wait(const Napi::CallbackInfo& info) {
  const CudaLibrary* library = g_library;
  environment_of(info).report(library ? library->wait(static_cast<int32_t>(number(info, 0))) : no_library());
  return info.Env().Undefined();
}

// On the JavaScript thread: settles the promise of finish().
void settle(napi_env env, napi_value, void*, void* data) {
  auto* pending = static_cast<Pending*>(data);
  if (env) {
    napi_value result;
    napi_get_null(env, &result);
    if (!pending->status.ok()) {
      auto object = Napi::Object::New(env);
      object.Set("code", static_cast<int>(pending->status.code));
      object.Set("what", pending->status.what);
      result = object;
    }
    napi_resolve_deferred(env, pending->deferred, result);
    napi_release_threadsafe_function(pending->call, napi_tsfn_release);
  }
  delete pending;
}

// cudaFinish(device): a promise for the end of everything enqueued there, of null or {code, what}. The event loop stays alive.
Napi::Value finish(const Napi::CallbackInfo& info) {
  const CudaLibrary* library = g_library;
  auto* pending = new Pending{};
  napi_value promise, name;
  napi_create_promise(info.Env(), &pending->deferred, &promise);
  napi_create_string_utf8(info.Env(), "kerf cuda", NAPI_AUTO_LENGTH, &name);
  napi_create_threadsafe_function(info.Env(), nullptr, nullptr, name, 0, 1, nullptr, nullptr, nullptr, settle, &pending->call);
  const auto done = [](void* context, const Status* status) {
    auto* pending = static_cast<Pending*>(context);
    pending->status = *status;
    // after this call JavaScript may have deleted it; where the environment is closing, nobody will
    if (napi_call_threadsafe_function(pending->call, pending, napi_tsfn_nonblocking) != napi_ok) delete pending;
  };
  Status status = library ? library->watch(static_cast<int32_t>(number(info, 0)), done, pending) : no_library();
  if (!status.ok()) done(pending, &status);
  return Napi::Value(info.Env(), promise);
}

}  // namespace

const CudaMemory* cuda_memory(napi_env env, napi_value value) {
  void* data = nullptr;
  napi_valuetype type;
  if (napi_typeof(env, value, &type) != napi_ok || type != napi_external) return nullptr;
  if (napi_get_value_external(env, value, &data) != napi_ok) return nullptr;
  auto* memory = static_cast<const CudaMemory*>(data);
  return t_memory.count(memory) ? memory : nullptr;
}

Status cuda_dispatch(const Place& place, const CudaCall& call) {
  if (place.mixed) {
    auto name = [](int32_t device) { return device == kCpu ? std::string("cpu") : "cuda:" + std::to_string(device); };
    return Status::error(Code::device, "its tensors are on %s and %s: to() brings them together", name(place.first).c_str(),
                         name(place.other).c_str());
  }
  Status status = g_library.load()->run(place.first, &call);
  if (status.code == Code::unsupported) status.code = Code::device;  // "this device has no kernel for that"
  return status;
}

void export_cuda(Napi::Env env, Napi::Object exports, Environment* environment) {
  auto set = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name, environment));
  };
  set("cudaOpen", open);
  set("cudaDevices", devices);
  set("cudaAllocate", allocate);
  set("cudaUpload", transfer<true>);
  set("cudaDownload", transfer<false>);
  set("cudaWait", wait);
  set("cudaFinish", finish);
}

}  // namespace kerf
