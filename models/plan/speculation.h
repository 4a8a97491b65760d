#pragma once
#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"
#include "models/plan/workload.h"

namespace moecast {

/// Tokens that a sequence goes on by in a step, on average, when `drafts` guesses are checked and each is right with
/// probability `acceptance` where those before it were: 1 + a + a^2 + ... + a^drafts.
double tokens_per_step(int drafts, double acceptance);

/// Parts of the model that guess one token each. Layers of several blocks guess by themselves; those of one block
/// (hybrid patterns) do together.
std::size_t draft_modules(const Architecture& architecture);

/// What runs to guess the token `guess` (0 = the first): a module's layers as the decoder, with the model's head. With
/// more guesses than modules the last one goes on.
Architecture draft_stack(const Architecture& architecture, int guess);

/// @throws InputError at "draft_tokens" or "acceptance" when guesses are asked of a model, phase or deployment that
/// makes none.
void require_drafts(const Architecture& architecture, const Deployment& deployment, const Workload& workload);

}  // namespace moecast
