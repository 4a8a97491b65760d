#pragma once
#include <string>
#include <vector>

#include "tools/loop/validate_kernels.h"

namespace moecast {

/// Judges published tables of dispatch, combine and all-to-all: every EP size of a library, GPU and mode by the reduced
/// law fitted to its other EP sizes. Strata: all, by kind, by library. The roofline is empty, for nobody's machine is
/// asked; nearest is the row of the same operation with the nearest bytes at another EP size.
/// @param tables  all published (`is_published_table`). @throws InputError on a broken table.
KernelValidationReport validate_published(const std::vector<std::string>& tables);

}  // namespace moecast
