// Included first by every file that is compiled once per target (the *_loops.h templates, simd.h, install.cc): everything
// in such a file lives in namespace kerf::<target>, so that no function compiled with wider instructions can be
// linked into baseline code. KERF_TARGET is set by the build from native/sources.json.
#pragma once
#ifndef KERF_TARGET
#error "this file belongs to a target: compile it through native/sources.json"
#endif
