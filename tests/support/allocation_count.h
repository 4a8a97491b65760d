#pragma once

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MOECAST_COUNTS_ALLOCATIONS 0
#else
#define MOECAST_COUNTS_ALLOCATIONS 1
#endif

namespace moecast::test {

/// Calls of malloc by the test program of sim since it started (moe_batch_test.cpp counts them).
long allocation_count();

}  // namespace moecast::test
