// Collectives of a warp: shuffles, ballot, ldmatrix and the products of mma.sync. Fragments are laid out as PTX says
// (warp-level matrix instructions): for every 8- and 16-bit type A is 16 rows of 32 bytes, B 8 columns of 32 bytes.
#pragma once
#include "memory.h"
#include "numbers.h"

namespace cu {

inline void sync_warp() {
  emu::warp_collective("syncwarp", nullptr, [](void**) {});
}

namespace emu {
// The value that lane source(lane) brought.
template <class T, class Source>
T shuffle(const char* name, T value, Source source) {
  struct Slot { T in, out; } slot{value, value};
  warp_collective(name, &slot, [&](void** slots) {
    for (int lane = 0; lane < 32; lane++)
      static_cast<Slot*>(slots[lane])->out = static_cast<Slot*>(slots[source(lane) & 31])->in;
  });
  return slot.out;
}
}  // namespace emu

template <class T>
T shuffle_xor(T value, int mask) {
  return emu::shuffle("shfl.bfly", value, [=](int lane) { return lane ^ mask; });
}

// Every lane may name another source, so each brings its own.
template <class T>
T shuffle(T value, int source) {
  struct Slot { T in, out; int source; } slot{value, value, source};
  emu::warp_collective("shfl.idx", &slot, [](void** slots) {
    for (int lane = 0; lane < 32; lane++) {
      Slot& own = *static_cast<Slot*>(slots[lane]);
      own.out = static_cast<Slot*>(slots[own.source & 31])->in;
    }
  });
  return slot.out;
}

inline uint32_t ballot(bool vote) {
  struct Slot { bool vote; uint32_t all; } slot{vote, 0};
  emu::warp_collective("vote.ballot", &slot, [](void** slots) {
    uint32_t all = 0;
    for (int lane = 0; lane < 32; lane++) all |= static_cast<uint32_t>(static_cast<Slot*>(slots[lane])->vote) << lane;
    for (int lane = 0; lane < 32; lane++) static_cast<Slot*>(slots[lane])->all = all;
  });
  return slot.all;
}

namespace emu {
// Four 8x8 matrices of 16-bit elements: lane 8i + r names row r of matrix i; lane l gets element pair l % 4 of row l / 4, or of
// column l / 4.
inline void load_matrices(uint32_t (&r)[4], const void* p, bool transposed, Where where) {
  struct Slot { const uint8_t* row; uint32_t* registers; } slot{static_cast<const uint8_t*>(p), r};
  check_aligned(p, 16, "ldmatrix");
  note_read(p, 16);
  warp_collective(transposed ? "ldmatrix.x4.trans" : "ldmatrix.x4", &slot, [&](void** slots) {
    Access access;
    access.bytes = 16;
    access.lanes = 0xffffffffu;
    auto at = [&](int lane) { return static_cast<Slot*>(slots[lane]); };
    for (int lane = 0; lane < 32; lane++) {
      if (!is_shared(at(lane)->row)) return;  // reported above
      access.address[lane] = static_cast<uint64_t>(at(lane)->row - machine.shared);
    }
    if (machine.options.count) count_access({where.file_name(), where.line(), where.column(), true}, access);
    for (int matrix = 0; matrix < 4; matrix++)
      for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 2; i++) {
          const int row = transposed ? lane % 4 * 2 + i : lane / 4, column = transposed ? lane / 4 : lane % 4 * 2 + i;
          memcpy(reinterpret_cast<uint8_t*>(&at(lane)->registers[matrix]) + i * 2, at(matrix * 8 + row)->row + column * 2, 2);
        }
  });
}
}  // namespace emu

inline void load_matrix_x4(uint32_t (&r)[4], const void* p, emu::Where where = emu::Where::current()) {
  emu::load_matrices(r, p, false, where);
}
inline void load_matrix_x4_transposed(uint32_t (&r)[4], const void* p, emu::Where where = emu::Where::current()) {
  emu::load_matrices(r, p, true, where);
}

namespace emu {

template <class Sum>
struct MmaSlot {
  Sum* d;
  const uint32_t* a;
  uint32_t b[4];
  uint32_t metadata;
};

// Where the place of kept element j of row m stands: two bits in the word of one of 32 lanes. 16-bit types: two lanes
// of a quad (chosen by the selector) hold k 0-15 and 16-31 of rows g (low half) and g + 8 (high half). 8-bit types:
// lanes 0 and 1 hold k 0-31 of rows g and g + 8, lanes 2 and 3 the rest.
struct PlaceOfIndex {
  int lane, bit;
};
template <class T>
PlaceOfIndex place_of_index(int m, int j, int selector) {
  if (kBytesOf<T> == 1) return {m % 8 * 4 + m / 8 + j / 16 * 2, j % 16 * 2};
  return {m % 8 * 4 + selector * 2 + j / 8, m / 8 * 16 + j % 8 * 2};
}

// Element j of the kept ones of row m stands at this k; two of a four must be in order.
template <class T, class MetadataOf>
int kept_at(int m, int j, int selector, MetadataOf metadata_of) {
  auto index = [&](int i) {
    PlaceOfIndex place = place_of_index<T>(m, i, selector);
    return static_cast<int>(metadata_of(place.lane) >> place.bit & 3);
  };
  if (j % 2 && index(j - 1) >= index(j)) report("sparse metadata out of order");
  return j / 2 * 4 + index(j);
}

// `sparse`: A is 2:4 and holds half of each row; B has 64 bytes a column.
template <class T, bool sparse, int selector = 0>
void multiply(void** slots) {
  using Sum = typename Sum_of<T>::type;
  constexpr int kColumnBytes = sparse ? 64 : 32;
  constexpr int kDepth = kColumnBytes / kBytesOf<T>;
  auto slot = [&](int lane) -> MmaSlot<Sum>& { return *static_cast<MmaSlot<Sum>*>(slots[lane]); };
  uint8_t a_bytes[16][32], b_bytes[8][kColumnBytes];
  for (int lane = 0; lane < 32; lane++) {
    int group = lane / 4, quad = lane % 4;
    for (int r = 0; r < 4; r++) memcpy(&a_bytes[group + 8 * (r & 1)][16 * (r >> 1) + 4 * quad], &slot(lane).a[r], 4);
    for (int r = 0; r < kColumnBytes / 16; r++) memcpy(&b_bytes[group][16 * r + 4 * quad], &slot(lane).b[r], 4);
  }
  Sum a[16][kDepth] = {}, b[kDepth][8];
  for (int m = 0; m < 16; m++) {
    if constexpr (!sparse) {
      widen(T{}, a_bytes[m], 32, a[m]);
    } else {
      Sum kept[kDepth / 2];
      widen(T{}, a_bytes[m], 32, kept);
      auto metadata_of = [&](int lane) { return slot(lane).metadata; };
      for (int j = 0; j < kDepth / 2; j++) a[m][kept_at<T>(m, j, selector, metadata_of)] = kept[j];
    }
  }
  for (int n = 0; n < 8; n++) {
    Sum column[kDepth];
    widen(T{}, b_bytes[n], kColumnBytes, column);
    for (int k = 0; k < kDepth; k++) b[k][n] = column[k];
  }
  for (int m = 0; m < 16; m++) {
    Sum sum[8] = {};
    for (int k = 0; k < kDepth; k++)
      for (int n = 0; n < 8; n++) sum[n] += a[m][k] * b[k][n];
    for (int n = 0; n < 8; n++) slot(m % 8 * 4 + n / 2).d[m / 8 * 2 + n % 2] += sum[n];
  }
}

}  // namespace emu

// d += a b
template <class T, class Sum>
void mma(T, Sum (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emu::MmaSlot<Sum> slot{d, a, {b0, b1, 0, 0}, 0};
  emu::warp_collective("mma", &slot, emu::multiply<T, false>);
}

// d += a b with a 2:4 sparse a
template <int selector, class T, class Sum>
void mma_sparse(T, Sum (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], uint32_t metadata) {
  static_assert(kBytesOf<T> == 2 || selector == 0, "all four lanes of a quad bring metadata of 8-bit types");
  emu::MmaSlot<Sum> slot{d, a, {b[0], b[1], b[2], b[3]}, metadata};
  emu::warp_collective("mma.sp", &slot, emu::multiply<T, true, selector>);
}

}  // namespace cu
