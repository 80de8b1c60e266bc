// Included first by every file that is compiled once per target (the *_loops.h templates, simd.h, install.cc): everything
// in such a file lives in namespace kerf::<target>, so that no function compiled with wider instructions can be
// linked into baseline code. KERF_TARGET is set by the build from native/sources.json.
#pragma once
#ifndef KERF_TARGET
#error "this file belongs to a target: compile it through native/sources.json"
#endif
#define KERF_TEXT_OF(x) #x
#define KERF_TEXT(x) KERF_TEXT_OF(x)
// "avx512": a kernel that is shown to people is called name@target, the target whose code it is.
#define KERF_TARGET_NAME KERF_TEXT(KERF_TARGET)

// Says to the compiler that a vector is read and changed here, in a register: it can be neither merged with another, nor
// dropped, nor kept in memory meanwhile.
#if defined(__x86_64__)
#define KERF_KEEP_IN_REGISTER(vector) asm volatile("" : "+v"(vector))
#elif defined(__aarch64__)
#define KERF_KEEP_IN_REGISTER(vector) asm volatile("" : "+w"(vector))
#else
#define KERF_KEEP_IN_REGISTER(vector) asm volatile("" : "+m"(vector))
#endif
