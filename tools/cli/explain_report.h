#pragma once
#include <span>
#include <string>

#include "models/core/json.h"
#include "tools/cli/output.h"
#include "tools/cli/prediction_report.h"
#include "tools/loop/relaxation.h"

namespace moecast {

/// An answer as a tree from the step down to kernels, what helps, and what was assumed. @param format  table or md.
std::string explain_text(const Answer& answer, std::span<const Relaxation> relaxations, Format format);

/// The answer of `predict` with `parts` (of the step, the longest first: `name`, `latency_s`, `share_ratio`, `flops`,
/// `bytes`, `arithmetic_intensity_flop_per_byte`), `relaxations` (`kind` factor or change, `name`, `title`, `ranks`,
/// `latency_s`, `latency_low_s`, `latency_high_s`, `saved_ratio`), `helps_most` (`factor`, `change`: the title of the
/// best of a kind, null where none helps) and `latency_without_s` of each factor. Unknown is null.
Json explain_json(const Answer& answer, std::span<const Relaxation> relaxations);

}  // namespace moecast
