#pragma once
#include <functional>
#include <string>
#include <vector>

#include "models/core/json.h"
#include "tools/cli/serve_options.h"
#include "tools/cli/serve_report.h"

namespace moecast {

/// A service with one thing changed on as many GPUs, simulated again.
struct ServiceChange {
  std::string name;   ///< "ep"
  std::string title;  ///< "ep 2 instead of 1"
  ServiceAnswer answer;
};

/// What its owner can change: how ranks are split, how experts lie on them, how many tokens and sequences a step takes.
/// What the model does not allow is left out.
/// @param options   of one load. @param progress  called with the share that is done.
/// @return what was done when the user interrupted.
std::vector<ServiceChange> change_service(const ServeOptions& options, const std::function<void(double)>& progress);

/// Where a request's time goes, and what would help. @param format  table or md.
std::string service_explanation(const ServiceAnswer& answer, const std::vector<ServiceChange>& changes, Format format);

/// `request` (of the mean: `queue_wait_s`, `prefill_s`, `output_s`, and the share of each), `changes` [{`name`,
/// `title`, `status`, `ttft_p50_s`, `tpot_p50_s`, `saturation_requests_per_s`}], `helps_most` (`ttft`, `tpot`,
/// `saturation`: the title of the best, null where none helps). Unknown is null.
Json service_explanation_json(const ServiceAnswer& answer, const std::vector<ServiceChange>& changes);

}  // namespace moecast
