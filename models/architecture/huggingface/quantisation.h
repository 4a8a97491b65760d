#pragma once
#include "models/architecture/architecture.h"
#include "models/architecture/huggingface/config.h"

namespace moecast::huggingface {

/// Sets dtype, expert_dtype and kv_dtype from torch_dtype, expert_dtype and quantization_config; notes what it cannot
/// tell.
void read_number_formats(Config& config, Architecture& architecture);

}  // namespace moecast::huggingface
