#pragma once
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "models/plan/engine.h"
#include "sim/step/step_pipeline.h"

namespace moecast {

/// Continuous batching of equal requests, as the service law sees it.
struct ServiceLoad {
  double prompt = 0;       ///< tokens
  double output = 0;       ///< tokens
  double concurrency = 1;  ///< requests in flight on all ranks
};

struct ServiceTerms {
  double decode_s = 0;   ///< kernels between two tokens of a request, all decoding, halfway through their outputs
  double prefill_s = 0;  ///< kernels of one prompt, in chunks
  double layers = 0;
  double moe_layers = 0;
  double requests = 1;  ///< of a rank
  double output = 1;
  double stages = 1;                ///< of a pipeline, that each token passes
  std::optional<double> stall_s{};  ///< what a prompt takes of the slowest stage; nullopt: prefill_s, of one stage
  std::optional<double> stalls{};   ///< by prompts of others, while a request generates; nullopt: requests - 1
  std::optional<double> ahead_s{};  ///< what a prompt ahead takes; nullopt: what stalls
  double held_steps = 0;            ///< for which a prompt waits until replicas of attention have one each
  double decode_assumed_s = 0;      ///< by which operators of physics alone may be off in decode_s, 90 %
  double prefill_assumed_s = 0;
};

ServiceTerms service_terms(const StepModel& model, const ServiceLoad& load);
/// Requests are dealt to as many micro-batches as there are stages, which follow each other without a pause.
ServiceTerms service_terms(const StepPipeline& pipeline, const ServiceLoad& load);

/// Seconds an output token: the decode step, what no table holds, and the share of (requests - 1) other prompts'
/// prefill that falls on each generated token.
double tpot_s(const ServiceTerms& terms, const EngineService& law);
/// Seconds to the first token, below saturation: host, own prefill and prompts ahead, one decode step.
double ttft_s(const ServiceTerms& terms, const EngineService& law);
/// Share of the time that prefill takes when requests follow each other without a pause: a queue grows from 1 on, and
/// the time to the first token is a queue's length long before.
double prefill_share(const ServiceTerms& terms, double tpot);

struct MeasuredService {
  ServiceTerms terms;
  std::string engine;
  double ttft_s = 0;
  double tpot_s = 0;
};

/// One law an engine: all together near the usual values, then each near that. Engines with fewer than ten rows get
/// what all have in common.
std::map<std::string, EngineService> fit_services(std::span<const MeasuredService> measured);

}  // namespace moecast
