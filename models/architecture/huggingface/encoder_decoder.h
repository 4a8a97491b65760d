#pragma once
#include "models/architecture/architecture.h"
#include "models/architecture/huggingface/config.h"
#include "models/architecture/huggingface/family.h"

namespace moecast::huggingface {

/// True for models of an encoder and a decoder (Switch Transformer, NLLB-MoE).
bool is_encoder_decoder(Config& config);

/// Fills encoder and decoder. Experts stand in every n-th layer of each (encoder_sparse_step, decoder_sparse_step; 0
/// for none). @throws InputError on missing or impossible fields.
void read_encoder_decoder(Config& config, const Family& family, Architecture& architecture);

}  // namespace moecast::huggingface
