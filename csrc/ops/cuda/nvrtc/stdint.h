// NVRTC has no system headers; csrc/contract asks for this one. Put this folder on its include
// path, and no other compiler's.
#pragma once

#include "../launch.h"

#define INT32_C(value) value
#define UINT32_C(value) value##U
#define INT64_C(value) value##LL
#define UINT64_C(value) value##ULL
