// The emulator's own tests: every primitive computes what PTX says, and every kind of mistake is reported.
#include "emulator/emulator.h"
#include "program.h"

using namespace cu;
using emu::Buffer;
using emu::machine;

static void run(int threads, std::function<void()> kernel, bool late = true, size_t shared_bytes = 64 << 10) {
  emu::prepare({0, late, true});
  emu::launch(dim3(1), dim3(static_cast<unsigned>(threads)), shared_bytes, std::move(kernel));
}

// Runs it in both modes, and expects exactly the report.
static void expect_report(const char* what, const char* wanted, int threads, const std::function<void()>& kernel) {
  for (bool late : {false, true}) {
    run(threads, kernel, late);
    bool found = machine.reports.count(wanted) > 0;
    program::expect(std::string(what) + (late ? ", late" : ", early"), found);
    if (!found) printf("  instead: %s\n", machine.first_report.c_str());
  }
}

static void expect_clean(const char* what) {
  program::expect(what, machine.reports.empty());
  if (!machine.reports.empty()) printf("  %s\n", machine.first_report.c_str());
}

static double cost(bool shared) {
  double most = 0;
  for (auto& [key, site] : machine.sites)
    if (std::get<3>(key) == shared) most = std::max(most, static_cast<double>(site.actual) / site.ideal);
  return most;
}

static int thread() { return static_cast<int>(threadIdx.x); }

static void collectives() {
  Buffer<int> out(96);
  run(32, [&] {
    int lane = thread();
    store_global(&out[lane], shuffle_xor(lane, 5));
    store_global(&out[32 + lane], shuffle(lane * 3, lane / 2));
    uint32_t odd = ballot(lane & 1);
    store_global(&out[64 + lane], static_cast<int>(odd));
    sync_warp();
  });
  bool right = true;
  for (int i = 0; i < 32; i++)
    right = right && out[i] == (i ^ 5) && out[32 + i] == i / 2 * 3 && static_cast<uint32_t>(out[64 + i]) == 0xaaaaaaaau;
  program::expect("shuffles and ballot", right);
  expect_clean("shuffles and ballot are clean");

  expect_report("lanes in different collectives", "divergent warp collective", 32, [] {
    if (thread() < 16)
      sync_warp();
    else
      ballot(true);
  });
  expect_report("half of a warp in a collective", "deadlock", 32, [] {
    if (thread() < 16) sync_warp();
  });
  expect_report("a barrier that one warp skips", "thread exited while others wait at a barrier", 64, [] {
    if (thread() < 32) sync_threads();
  });
}

// One warp multiplies small whole numbers: exact in every format.
template <class T>
static void dense(const char* name) {
  using Sum = typename Sum_of<T>::type;
  constexpr int kDepth = 32 / kBytesOf<T>;
  Buffer<uint8_t> a(16 * 32), b(8 * 32);
  Buffer<Sum> d(16 * 8);
  std::vector<double> a_values(16 * kDepth), b_values(8 * kDepth);
  for (int i = 0; i < 16 * kDepth; i++) program::store<T>(a.data(), i, a_values[i] = i * 7 % 19 - 9);
  for (int i = 0; i < 8 * kDepth; i++) program::store<T>(b.data(), i, b_values[i] = i * 5 % 17 - 8);
  run(32, [&] {
    int lane = thread();
    uint8_t* at = shared_memory();
    copy_async16(at + lane * 16, a.data() + lane * 16, true);
    if (lane < 16) copy_async16(at + 512 + lane * 16, b.data() + lane * 16, true);
    copy_commit();
    copy_wait<0>();
    sync_warp();
    uint32_t fa[4], fb[4];
    load_matrix_x4(fa, at + lane % 16 * 32 + lane / 16 * 16);
    load_matrix_x4(fb, at + 512 + lane % 8 * 32 + lane / 8 % 2 * 16);
    Sum sum[4] = {};
    mma(T{}, sum, fa, fb[0], fb[1]);
    for (int e = 0; e < 4; e++) store_global(&d[(lane / 4 + e / 2 * 8) * 8 + lane % 4 * 2 + e % 2], sum[e]);
  });
  bool right = true;
  for (int m = 0; m < 16; m++)
    for (int n = 0; n < 8; n++) {
      double want = 0;
      for (int k = 0; k < kDepth; k++) want += a_values[m * kDepth + k] * b_values[n * kDepth + k];
      right = right && static_cast<double>(d[m * 8 + n]) == want;
    }
  program::expect(std::string("mma of ") + name, right);
  expect_clean("cp.async, ldmatrix and mma are clean");
}

// One warp multiplies a 2:4 matrix of small whole numbers; lanes whose metadata the selector leaves out bring nonsense.
template <class T, int selector>
static void sparse(const char* name) {
  using Sum = typename Sum_of<T>::type;
  constexpr int kBytes = kBytesOf<T>, kDepth = 64 / kBytes, kKept = kDepth / 2;
  Buffer<uint8_t> kept(16 * 32), b(8 * 64);
  Buffer<uint32_t> metadata(32);
  Buffer<Sum> d(128);
  std::vector<double> a(16 * kDepth, 0.0);
  std::mt19937 random(1);
  for (int lane = 0; lane < 32; lane++)
    metadata[lane] = kBytes == 1 || lane % 4 / 2 == selector ? 0u : static_cast<uint32_t>(random());
  for (int m = 0; m < 16; m++)
    for (int j = 0; j < kKept; j += 2) {
      static const int pairs[6][2] = {{0, 1}, {0, 2}, {0, 3}, {1, 2}, {1, 3}, {2, 3}};
      const int* pair = pairs[random() % 6];
      for (int i = 0; i < 2; i++) {
        int value = static_cast<int>(random() % 17) - 8;
        program::store<T>(kept.data(), m * kKept + j + i, value);
        a[m * kDepth + j * 2 + pair[i]] = value;
        // written out once more, so that the emulator's own formula is not its own judge
        int lane = kBytes == 2 ? m % 8 * 4 + selector * 2 + (j + i) / 8 : m % 8 * 4 + m / 8 + ((j + i) / 16 ? 2 : 0);
        int bit = kBytes == 2 ? (m >= 8 ? 16 : 0) + (j + i) % 8 * 2 : (j + i) % 16 * 2;
        metadata[lane] |= static_cast<uint32_t>(pair[i]) << bit;
      }
    }
  for (int i = 0; i < 8 * kDepth; i++) program::store<T>(b.data(), i, i * 5 % 17 - 8);
  auto kernel = [&] {
    int lane = thread(), group = lane / 4, quad = lane % 4;
    uint32_t fa[4], fb[4];
    auto word = [](const uint8_t* p) { return load_global(reinterpret_cast<const uint32_t*>(p)); };
    for (int r = 0; r < 4; r++) fa[r] = word(&kept[(group + 8 * (r & 1)) * 32 + 16 * (r >> 1) + 4 * quad]);
    for (int r = 0; r < 4; r++) fb[r] = word(&b[group * 64 + 16 * r + 4 * quad]);
    Sum sum[4] = {};
    mma_sparse<selector>(T{}, sum, fa, fb, load_global(&metadata[lane]));
    for (int e = 0; e < 4; e++) store_global(&d[(group + e / 2 * 8) * 8 + quad * 2 + e % 2], sum[e]);
  };
  run(32, kernel);
  bool right = true;
  for (int m = 0; m < 16; m++)
    for (int n = 0; n < 8; n++) {
      double want = 0;
      for (int k = 0; k < kDepth; k++) want += a[m * kDepth + k] * ((n * kDepth + k) * 5 % 17 - 8);
      right = right && static_cast<double>(d[m * 8 + n]) == want;
    }
  program::expect(std::string("mma.sp of ") + name, right);
  expect_clean("mma.sp is clean");
  for (int lane = 0; lane < 32; lane++) metadata[lane] = 0x55555555;  // the same place twice
  expect_report("metadata out of order", "sparse metadata out of order", 32, kernel);
}

static void numbers() {
  program::expect("bytes in any order", permute_bytes(0x33221100, 0x77665544, 0x7240) == 0x77224400);
  auto pair = [](double value) { return pack2(f16{}, static_cast<float>(value), static_cast<float>(2 * value)); };
  program::expect("fma of float16 pairs", fma2(f16{}, pair(1.5), pair(3), pair(-4)) ==
                                              pack2(f16{}, 1.5f * 3 - 4, 3.0f * 6 - 8));
  program::expect("fma of bfloat16 pairs",
                  fma2(bf16{}, pack2(bf16{}, 200, 131), pack2(bf16{}, 1, 1), pack2(bf16{}, -128, -136)) ==
                      pack2(bf16{}, 72, -5));
}

// Blocks that hand something on in global memory.
static void blocks() {
  Buffer<unsigned> word(4), arrived(1), out(1);
  enum Fault { none, no_fence, no_acquire, no_barrier, no_atomic, cached };
  auto kernel = [&](Fault fault) {
    return [&, fault] {
      unsigned block = blockIdx.x, *last = reinterpret_cast<unsigned*>(shared_memory());
      if (thread() == 32) store_global(&word[block], block + 1);
      if (fault != no_barrier) sync_threads();
      if (thread() == 0) {
        if (fault != no_fence) fence_global();
        unsigned earlier = fault == no_atomic ? 1 : atomic_add(&arrived[0], 1);
        if (fault != no_acquire) fence_global();
        store_shared(last, earlier);
      }
      sync_threads();
      if (load_shared(last) != 1 || thread() != 0) return;
      unsigned sum = 0;
      for (int i = 0; i < 2; i++) sum += fault == cached ? load_global(&word[i]) : load_written(&word[i]);
      store_global(&out[0], sum);
    };
  };
  auto launch = [&](Fault fault, unsigned seed) {
    arrived[0] = 0;
    emu::prepare({seed, true, true});
    emu::launch(dim3(2), dim3(64), 1024, kernel(fault));
  };
  for (unsigned seed : {0u, 1u, 2u, 3u}) {
    launch(none, seed);
    program::expect("the last block sums both words", out[0] == 3);
    expect_clean("fences and an atomic order blocks");
  }
  for (Fault fault : {no_fence, no_acquire, no_barrier, no_atomic}) {
    launch(fault, 0);
    program::expect("unordered blocks are reported, fault " + std::to_string(fault),
                    machine.reports.count("race: a block reads what another wrote, unordered") > 0);
  }
  launch(cached, 0);
  program::expect("the read-only cache is no way between blocks",
                  machine.reports.count("read through the read-only cache of what this launch wrote") > 0);
  emu::prepare({0, true, true});
  emu::launch(dim3(2), dim3(32), 1024, [&] { store_global(&word[thread() % 4], 1u); });
  program::expect("two blocks write one word",
                  machine.reports.count("race: two blocks write the same bytes, unordered") > 0);
  Buffer<uint8_t> bytes(2);
  emu::prepare({0, true, true});
  emu::launch(dim3(2), dim3(32), 1024, [&] {
    if (thread() == 0) store_global(&bytes[blockIdx.x], uint8_t{1});
  });
  expect_clean("two blocks may write neighbouring bytes");
  emu::prepare({0, true, true});
  emu::launch(dim3(2), dim3(32), 1024, [&] {
    if (blockIdx.x == 0)
      load_global(&word[0]);
    else if (thread() == 0)
      store_global(&word[0], 1u);
  });
  program::expect("one block writes what another reads",
                  machine.reports.count("race: a block writes what another reads, unordered") > 0);
}

static void memory() {
  Buffer<float> global(64 * 32);
  auto word = [](int i) { return reinterpret_cast<float*>(shared_memory()) + i; };
  expect_report("reading what nobody wrote", "read of uninitialised shared memory", 32, [&] { load_shared(word(0)); });
  run(32, [&] { store_global(&global[thread()], load_shared(word(thread()))); });
  program::expect("shared memory starts as NaN", std::isnan(global[3]));
  expect_report("reading beyond shared memory", "read outside of shared memory", 32,
                [&] { load_shared(word(1 << 20)); });
  expect_report("reading beyond a buffer", "global read outside of every buffer", 32,
                [&] { load_global(global.data() + 64 * 32 + thread()); });
  expect_report("writing before a buffer", "global write outside of every buffer", 32,
                [&] { store_global(global.data() - 1, 0.f); });
  expect_report("a vector at an odd address", "global read: misaligned", 32,
                [&] { load_global(reinterpret_cast<const float4*>(&global[1])); });
  expect_report("a copy to an odd address", "cp.async: misaligned", 32,
                [&] { copy_async16(shared_memory() + 8, global.data(), true); });
  expect_report("a copy from beyond a buffer", "cp.async outside of every buffer", 32,
                [&] { copy_async16(shared_memory() + thread() * 16, &global[64 * 32], true); });

  expect_report("no wait for a copy", "read of the target of an asynchronous copy before it was waited for", 32, [&] {
    copy_async16(shared_memory() + thread() * 16, global.data(), true);
    copy_commit();
    load_shared(word(thread() * 4));
  });
  auto exchange = [&](bool first, bool second) {
    return [&, first, second] {
      store_shared(word(thread() * 4), 1.f);
      if (first) sync_threads();
      load_shared(word((thread() ^ 32) * 4));
      if (second) sync_threads();
      store_shared(word(thread() * 4), 2.f);
    };
  };
  expect_report("no barrier after a write", "read of uninitialised shared memory", 64, exchange(false, true));
  expect_report("no barrier after a read", "race: write not ordered after another warp's read", 64,
                exchange(true, false));
  run(64, exchange(true, true));
  expect_clean("two barriers make an exchange");
  expect_report("two warps write one word", "race: two unordered writes", 64, [&] { store_shared(word(0), 1.f); });
}

static void counters() {
  Buffer<float> global(32 * 32);
  auto strided = [&](int stride) {
    run(32, [&, stride] { store_shared(reinterpret_cast<float*>(shared_memory()) + thread() * stride, 0.f); });
    return cost(true);
  };
  program::expect("neighbours do not conflict", strided(1) == 1);
  program::expect("a stride of 2 words: 2 wavefronts", strided(2) == 2);
  program::expect("a stride of 32 words: 32 wavefronts", strided(32) == 32);
  program::expect("a stride of 33 words is free", strided(33) == 1);
  auto sectors = [&](int stride) {
    run(32, [&, stride] { load_global(&global[thread() * stride]); });
    return cost(false);
  };
  program::expect("neighbours share sectors", sectors(1) == 1);
  program::expect("a stride of 2: twice the sectors", sectors(2) == 2);
  program::expect("a stride of 32: 8 times", sectors(32) == 8);
}

// One warpgroup: a 64-row tile times a 128-row tile, 128 bytes deep, by TMA and wgmma; rows and bytes outside are
// zeros.
template <class T>
static void hopper(const char* name, bool late) {
  using Sum = typename Sum_of<T>::type;
  constexpr int kRows = 60, kColumns = 120, kDepth = 112 / kBytesOf<T>;
  Buffer<uint8_t> a(kRows * 112), b(kColumns * 112);
  Buffer<Sum> d(64 * 128);
  for (int i = 0; i < kRows * kDepth; i++) program::store<T>(a.data(), i, i * 7 % 19 - 9);
  for (int i = 0; i < kColumns * kDepth; i++) program::store<T>(b.data(), i, i * 5 % 17 - 8);
  TensorMap a_map{a.data(), kRows, 112, 112, 64, kBytesOf<T>}, b_map{b.data(), kColumns, 112, 112, 128, kBytesOf<T>};
  auto kernel = [&] {
    uint8_t* at = shared_memory();
    uint64_t* barrier = reinterpret_cast<uint64_t*>(at + 192 * 128);
    if (thread() == 0) {
      mbarrier_init(barrier, 1);
      mbarrier_fence_init();
      mbarrier_arrive_expect(barrier, 192 * 128);
      tma_load(at, &a_map, 0, 0, barrier);
      tma_load(at + 64 * 128, &b_map, 0, 0, barrier);
    }
    sync_threads();
    mbarrier_wait(barrier, 0);
    Sum sum[64];
    wgmma_fence();
    for (int i = 0; i < 4; i++)
      wgmma(T{}, sum, tile_descriptor(at + i * 32), tile_descriptor(at + 64 * 128 + i * 32), i > 0);
    wgmma_commit();
    wgmma_wait<0>();
    int lane = thread() % 32, warp = thread() / 32;
    for (int j = 0; j < 16; j++)
      for (int e = 0; e < 4; e++)
        store_global(&d[(warp * 16 + e / 2 * 8 + lane / 4) * 128 + j * 8 + lane % 4 * 2 + e % 2], sum[j * 4 + e]);
  };
  run(128, kernel, late);
  bool right = true;
  for (int m = 0; m < 64; m++)
    for (int n = 0; n < 128; n++) {
      double want = 0;
      if (m < kRows && n < kColumns)
        for (int k = 0; k < kDepth; k++) want += ((m * kDepth + k) * 7 % 19 - 9) * ((n * kDepth + k) * 5 % 17 - 8);
      right = right && static_cast<double>(d[m * 128 + n]) == want;
    }
  program::expect(std::string("TMA and wgmma of ") + name + (late ? ", late" : ", early"), right);
  expect_clean("TMA and wgmma are clean");
}

static void hopper_mistakes() {
  auto barrier = [] { return reinterpret_cast<uint64_t*>(shared_memory()); };
  expect_report("a barrier without init", "mbarrier used before init", 32, [&] { mbarrier_arrive(barrier()); });
  expect_report("nobody arrives", "deadlock", 32, [&] {
    if (thread() == 0) mbarrier_init(barrier(), 1);
    sync_warp();
    mbarrier_wait(barrier(), 0);
  });
  expect_report("an arrival too many", "mbarrier: too many arrivals", 32, [&] {
    if (thread() != 0) return;
    mbarrier_init(barrier(), 1);
    mbarrier_arrive_expect(barrier(), 128);
    mbarrier_arrive(barrier());
  });
  Buffer<uint8_t> global(128 * 8);
  TensorMap map{global.data(), 8, 128, 128, 8, 1};
  expect_report("a box at an odd place", "TMA with the 128-byte swizzle: misaligned", 32, [&] {
    if (thread() != 0) return;
    mbarrier_init(barrier(), 1);
    mbarrier_arrive_expect(barrier(), 1024);
    tma_load(shared_memory() + 1024 + 128, &map, 0, 0, barrier());
    mbarrier_wait(barrier(), 0);
  });
  expect_report("no wgmma.fence", "wgmma without wgmma.fence", 128, [] {
    float sum[64];
    wgmma(f16{}, sum, tile_descriptor(shared_memory()), tile_descriptor(shared_memory() + 8192), false);
    wgmma_commit();
    wgmma_wait<0>();
  });
  expect_report("too many registers", "setmaxnreg: more than 65536 registers", 384, [] {
    registers_increase<232>();
  });
  run(384, [] {
    if (thread() < 128)
      registers_decrease<40>();
    else
      registers_increase<232>();
  });
  expect_clean("40, 232 and 232 registers fit");

  auto named = [](bool meet) {
    return [meet] {
      float* at = reinterpret_cast<float*>(shared_memory());
      if (thread() < 32) return;
      store_shared(at + thread() * 4, 1.f);
      if (meet) named_barrier(1, 64);
      load_shared(at + ((thread() - 32) ^ 32) * 4 + 128);
    };
  };
  run(96, named(true));
  expect_clean("a named barrier orders the warps that meet at it");
  expect_report("no named barrier", "read of uninitialised shared memory", 96, named(false));
}

int main() {
  collectives();
  dense<f16>("float16");
  dense<bf16>("bfloat16");
  dense<s8>("int8");
  sparse<f16, 0>("float16");
  sparse<f16, 1>("float16, selector 1");
  sparse<bf16, 0>("bfloat16");
  sparse<s8, 0>("int8");
  numbers();
  blocks();
  memory();
  counters();
  for (bool late : {false, true}) {
    hopper<f16>("float16", late);
    hopper<bf16>("bfloat16", late);
    hopper<s8>("int8", late);
  }
  hopper_mistakes();
  return program::finish();
}
