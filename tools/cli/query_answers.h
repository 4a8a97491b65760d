#pragma once
#include <string>
#include <vector>

#include "models/core/error.h"
#include "tools/cli/hardware_choice.h"
#include "tools/cli/prediction_report.h"

namespace moecast {

/// Says which flag is at fault where the plan of a query names the field only. @throws always.
[[noreturn]] void blame_flag(const InputError& error, const std::string& model);

/// Each warning once, however many combinations raise it; notes of the model's importer too.
void show_warnings(const std::vector<Answer>& answers);

/// Steps of GPUs are asked with the popularity that trained routers show, where nobody says another.
QueryOptions with_usual_load(QueryOptions options, bool gpu);

/// @throws UsageError for flags that mean nothing on a GPU.
void refuse_cpu_flags(const QueryOptions& options, const HardwareChoice& hardware);

/// @throws UsageError for degrees of experts where the model has none.
void refuse_expert_degrees(const Architecture& architecture, const Deployment& deployment);

/// Fills in what the profile decides and nobody typed, and lists it under the inputs.
/// @param options  as they were typed.
void complete_query(Query& query, const QueryOptions& options, const HardwareChoice& hardware);

/// One answer. @throws UsageError or InputError that says which flag, or else which model, is at fault.
/// @param rated  with its expert-parallel efficiency, which asks one device too.
Prediction predict_query(const Predictor& predictor, const Query& query, const std::string& model, bool rated = true);

/// What nobody said: a machine without the model's format (a CPU without bf16) computes in one that it was profiled in,
/// GPUs that share experts each have attention of their own. The inputs say so.
void fill_in_assumed(Query& query, const HardwareChoice& hardware);

}  // namespace moecast
