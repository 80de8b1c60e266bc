// The process-wide thread pool. A plain function-pointer interface, so that target translation units can use it
// without instantiating templates of shared headers under their own ISA flags.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kerf {

// Runs body(context, task) for every task in [0, tasks), on this thread and the pool's; returns when all are done.
// Tasks are handed out in increasing order. Which thread runs a task is unspecified, so a result must not depend on
// it. Nested calls, and calls while another stream holds the pool, run serially on the calling thread.
void pool_run(int64_t tasks, void (*body)(void* context, int64_t task), void* context);

// The number of threads that pool_run may use, the caller included: KERF_THREADS, or the CPUs of this process.
int pool_threads();
void pool_set_threads(int threads);  // 1..256; before or between parallel regions
void pool_shutdown();                // joins the workers; a later pool_run starts them again

// Scratch memory of the calling thread, in huge pages where the system gives them, 64-byte aligned (page faults cost
// 10 us per 4 KiB on virtual machines, so it is kept and grows only). Each slot is one buffer; its content is lost when
// the same slot is asked for again. Null when memory is exhausted.
enum class Scratch : int { pack_a, pack_b, widen, bias, convert, row, quantized, row_scales, digits, planes, patches, taps, results, phase_weights, slots };
void* scratch(Scratch slot, size_t bytes);

// Calls a C++ callable; a lambda's template instance is local to its translation unit.
template <class Body>
static inline void parallel(int64_t tasks, Body&& body) {
  pool_run(tasks, [](void* context, int64_t task) { (*static_cast<Body*>(context))(task); }, &body);
}

}  // namespace kerf
