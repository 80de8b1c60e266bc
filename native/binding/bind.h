// bind<&ops::name>: the N-API function of a driver, its argument readers deduced from the driver's signature.
#pragma once
#include <tuple>

#include "../ops/ops.h"
#include "../ops/targets.h"
#include "label.h"
#include "read_view.h"

namespace kerf {

template <auto Driver> constexpr const char* kOpName = "";
#define OP(name, parameters) \
  template <> inline constexpr const char* kOpName<&ops::name> = #name;
#include "../core/ops.def"
#undef OP

template <auto Driver> constexpr OpCode kOpCode = OpCode::size;
#define OP(name, parameters) \
  template <> inline constexpr OpCode kOpCode<&ops::name> = OpCode::name##_;
#include "../core/ops.def"
#undef OP

template <auto Driver> struct Bound;

template <class... Parameters, Status (*Driver)(Stream&, Parameters...)>
struct Bound<Driver> {
  static napi_value call(napi_env env, napi_callback_info info) {
    constexpr size_t kViews = (0 + ... + (std::is_base_of_v<View, Parameters> ? 1 : 0));
    napi_value buffers[kViews + 1];
    size_t count = kViews;
    void* data;
    if (napi_get_cb_info(env, info, &count, buffers, nullptr, &data) != napi_ok) return nullptr;
    auto& environment = *static_cast<Environment*>(data);
    Reader reader{env, environment.arguments, environment.arguments + Environment::kArguments, buffers,
                  count < kViews ? count : kViews, Status{}, {}};
    std::tuple<Parameters...> parameters{read<Parameters>(reader)...};
    if (!reader.status.ok()) return environment.report(reader.status);
    if (reader.place.on_device()) {
      return environment.report(
          std::apply([&](const auto&... p) { return cuda_run(reader.place, kOpCode<Driver>, p...); }, parameters));
    }
    if (debug_kernels()) {
      Label label{environment.stream.label(), environment.stream.label() + kLabel};
      label.add("%s@%s", kOpName<Driver>, kernels().target);
      std::apply([&](const auto&... p) { (label.add(p), ...); }, parameters);
    }
    Status status = std::apply([&](auto&... p) { return Driver(environment.stream, p...); }, parameters);
    return environment.report(status);
  }
};

template <auto Driver> constexpr napi_callback bind = Bound<Driver>::call;

}  // namespace kerf
