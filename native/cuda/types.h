// The element types that tensor cores multiply, as tags.
#pragma once
#include <cstddef>
#include <cstdint>

namespace cu {

struct f16 {};
struct bf16 {};
struct s8 {};

// What their products are summed in.
template <class T> struct Sum_of { using type = float; };
template <> struct Sum_of<s8> { using type = int; };

template <class T> constexpr int kBytesOf = 2;
template <> inline constexpr int kBytesOf<s8> = 1;

}  // namespace cu
