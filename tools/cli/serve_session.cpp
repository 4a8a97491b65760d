#include "tools/cli/serve_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "models/plan/memory.h"
#include "sim/step/service_arrivals.h"
#include "tools/cli/command.h"
#include "tools/cli/hardware_choice.h"
#include "tools/cli/model_choice.h"
#include "tools/cli/query_answers.h"
#include "tools/loop/interrupt.h"

namespace moecast {
namespace {

constexpr std::int64_t kMostServeRanks = 4096;
constexpr std::int64_t kMostServedTokens = 100'000'000;
constexpr std::int64_t kMostRequests = 5'000'000;
/// Requests that are simulated where nobody says how many: at least, at most, and for each that is in flight.
constexpr std::int64_t kUsualRequests = 2000;
constexpr std::int64_t kMostUsualRequests = 50'000;
constexpr double kRequestsPerInFlight = 20;
constexpr std::int64_t kLeastOfClients = 200;
constexpr std::int64_t kRequestsPerClient = 10;
/// One of so many requests warms up the service.
constexpr std::int64_t kWarmupShare = 5;
/// From this share of saturation on, waits depend on the seed.
constexpr double kCritical = 0.95;
/// Simulations of an answer: steps in the middle, at the low and at the high end of their interval.
constexpr double kRunsOfAnAnswer = 3;

StepLaw parse_step_law(const std::string& text) {
  if (text == "service") return StepLaw::service;
  if (text == "host") return StepLaw::host;
  throw UsageError("--step-law", fmt::format("\"{}\" is no law of a step", text), "write service or host");
}

void add_warnings(ServiceAnswer& answer) {
  const ServiceStudy& study = answer.middle;
  if (!study.stable) return;
  if (answer.slow && !answer.slow->stable) {
    answer.warnings.emplace_back("with steps at the upper end of their interval the queue grows without end");
  }
  if (study.load_ratio && *study.load_ratio > kCritical) {
    answer.warnings.push_back(fmt::format("at {} of saturation waits depend on the seed and the number of requests",
                                          format_percent(*study.load_ratio)));
  }
  if (study.outcome && !study.outcome->steady) {
    answer.warnings.emplace_back(
        "the service is filling or draining most of the time: more --requests show how it "
        "goes on");
  }
}

std::int64_t shortest_drawn(std::int64_t tokens, double range_ratio) {
  return std::max<std::int64_t>(1, std::llround(static_cast<double>(tokens) * (1 - range_ratio)));
}

std::int64_t longest_drawn(std::int64_t tokens, double range_ratio) {
  return static_cast<std::int64_t>(std::ceil(static_cast<double>(tokens) * (1 + range_ratio)));
}

}  // namespace

ServeSession::ServeSession(const ServeOptions& options) : options_(options), folders_(find_data_folders(options.data)) {
  if (options.model.empty()) {
    throw UsageError("--model", "is missing", "a name of moecast list models, or a config.json");
  }
  if (options.hw.empty()) throw UsageError("--hw", "is missing", "e.g. --hw h200-sxm: moecast list hw");
  read_load();
  read_deployment();
  read_goals();
  architecture_ = load_model(options.model, folders_);
  refuse_expert_degrees(architecture_, deployment_);
  if (!options.max_context.empty()) {
    architecture_.max_context = parse_count(options.max_context, "--max-context", 1, 100'000'000);
  }
  const HardwareChoice hardware = choose_hardware(options.hw, folders_);
  if (!hardware.gpu) {
    throw UsageError("--hw", fmt::format("{} is a CPU: no serving engine is known on it", options.hw),
                     "name a GPU: moecast list hw");
  }
  ServedLoad load;
  load.batched_tokens = parse_count(options.batched_tokens, "--max-batched-tokens", 1, kMostServedTokens);
  load.sequences = parse_count(options.sequences, "--max-sequences", 1, 1 << 20);
  load.memory_ratio = parse_number(options.memory_ratio, "--memory-ratio", 0.01, 1);
  load.experts = parse_load(options.load, seed_);
  load.law = parse_step_law(options.step_law);
  if (!options.acceptance.empty()) load.acceptance = parse_number(options.acceptance, "--acceptance", 0, 1);
  load.seed = seed_;
  load.longest = longest_drawn(prompt_, range_ratio_) + longest_drawn(output_, range_ratio_);
  for (const ServiceRequest& request : recorded_) {
    load.longest = std::max(load.longest, request.prompt + request.output);
  }
  try {
    served_ = serve_model(architecture_, deployment_, hardware.folder, folders_.engines, load);
  } catch (const InputError& error) {
    blame_flag(error, options.model);
  }
  hw_folder_ = hardware.folder;
  finish_setup();
}

std::optional<ServiceAnswer> ServeSession::answer(const Asked& asked,
                                                  const std::function<void(double)>& progress) const {
  ServiceAnswer answer;
  answer.status = served_.status;
  answer.reason = served_.reason;
  answer.memory = served_.memory;
  answer.cache_tokens = served_.cache_tokens;
  answer.gpus = gpus_;
  answer.price_per_hour = price_;
  answer.warnings = served_.warnings;
  ServiceSetup setup = setup_;
  setup.clients = asked.clients;
  setup.stop = &InterruptGuard::flag();
  double finished = 0;
  setup.progress = [&](double share) { progress(std::min(1.0, (finished + share) / kRunsOfAnAnswer)); };
  std::vector<ServiceRequest> requests = requests_of(asked, usual_requests(asked));
  if (served_.status == Status::ok) {
    const auto study = [&](IntervalEnd end) {
      setup.front_s = front_of(requests, end);
      ServiceStudy done = study_service(requests, setup, asked.rate,
                                        [&, end](const ServiceStep& step) { return served_.seconds(step, end); });
      ++finished;
      return done;
    };
    setup.warmup_requests = warmup_of(requests.size());
    setup.pipeline = served_.stages_of_instance();
    answer.middle = study(IntervalEnd::middle);
    if (const std::size_t enough = enough_requests(asked, answer.middle, requests.size()); enough > 0) {
      requests = requests_of(asked, enough);
      setup.warmup_requests = warmup_of(requests.size());
      answer.middle = study(IntervalEnd::middle);
    }
    answer.quick = study(IntervalEnd::low);
    answer.slow = study(IntervalEnd::high);
    if (answer.middle.stopped || answer.quick->stopped || answer.slow->stopped) return std::nullopt;
    add_warnings(answer);
  }
  answer.inputs = inputs_of(asked, requests);
  return answer;
}

void ServeSession::read_load() {
  const int given =
      (options_.rate.empty() ? 0 : 1) + (options_.arrivals.empty() ? 0 : 1) + (options_.concurrency.empty() ? 0 : 1);
  if (given != 1) {
    throw UsageError("--rate", given == 0 ? "is missing" : "contradicts another load",
                     "one of --rate REQUESTS_A_SECOND, --concurrency CLIENTS, --arrivals FILE.csv");
  }
  seed_ = static_cast<std::uint64_t>(parse_count(options_.seed, "--seed"));
  prompt_ = options_.prompt.empty() ? 1024 : parse_count(options_.prompt, "--prompt", 1, kMostServedTokens);
  output_ = options_.output.empty() ? 256 : parse_count(options_.output, "--output", 1, kMostServedTokens);
  if (!options_.requests.empty()) requests_ = parse_count(options_.requests, "--requests", 1, kMostRequests);
  if (!options_.urgent.empty()) urgent_ = parse_number(options_.urgent, "--urgent", 0, 1);
  range_ratio_ = parse_number(options_.range_ratio, "--range-ratio", 0, 1);
  if (!options_.warmup.empty()) warmup_ = parse_count(options_.warmup, "--warmup", 0, kMostRequests);
  if (!options_.arrivals.empty()) {
    for (const auto& [flag, text] : {std::pair{"--prompt", options_.prompt}, {"--output", options_.output}}) {
      if (!text.empty()) throw UsageError(flag, "contradicts --arrivals, which says it", "leave one out");
    }
    if (range_ratio_ > 0)
      throw UsageError("--range-ratio", "contradicts --arrivals, which says lengths", "leave one out");
    recorded_ = read_requests(options_.arrivals);
    if (requests_ && *requests_ < static_cast<std::int64_t>(recorded_.size())) {
      recorded_.resize(static_cast<std::size_t>(*requests_));
    }
    prompt_ = output_ = 0;
    asked_.push_back({});
  } else if (!options_.rate.empty()) {
    for (const std::string& text : split_list(options_.rate, "--rate")) {
      asked_.push_back({parse_number(text, "--rate", 1e-9, 1e9), std::nullopt});
    }
  } else {
    for (const std::int64_t clients : parse_range(options_.concurrency, "--concurrency", 1, 1 << 20)) {
      asked_.push_back({std::nullopt, clients});
    }
  }
  if (requests_ && warmup_ && *warmup_ >= *requests_) {
    throw UsageError("--warmup", "leaves no request to measure", "fewer than --requests");
  }
}

void ServeSession::read_deployment() {
  const auto ranks = [](const std::string& text, const char* flag) {
    return static_cast<int>(parse_count(text, flag, 1, kMostServeRanks));
  };
  deployment_.tp = ranks(options_.tp, "--tp");
  deployment_.ep = ranks(options_.ep, "--ep");
  deployment_.dp = ranks(options_.dp, "--dp");
  deployment_.pp = ranks(options_.pp, "--pp");
  deployment_.cp = ranks(options_.cp, "--cp");
  if (!options_.moe_tp.empty()) deployment_.moe_tp = ranks(options_.moe_tp, "--moe-tp");
  deployment_.draft_tokens = static_cast<int>(parse_count(options_.draft_tokens, "--draft-tokens", 0, 64));
  deployment_.backend = options_.backend;
  deployment_.eager = options_.eager;
  deployment_.kv_block_tokens = parse_count(options_.block, "--kv-block", 1, 1 << 20);
  if (!options_.dtype.empty()) deployment_.dtype = parse_dtype_flag(options_.dtype);
  if (!options_.kv_dtype.empty()) deployment_.kv_dtype = parse_dtype_flag(options_.kv_dtype, "--kv-dtype");
  deployment_.all_reduce = parse_all_reduce(options_.all_reduce);
  double all = 1;
  for (const int degree : {deployment_.tp, deployment_.dp, deployment_.cp, deployment_.pp}) all *= degree;
  if (all > kMostServeRanks || deployment_.ep * static_cast<double>(deployment_.moe_tp.value_or(1)) > kMostServeRanks) {
    throw UsageError("--tp",
                     fmt::format("x dp x cp x pp are {:.0f} GPUs an instance, {} are possible", all, kMostServeRanks),
                     "fewer ranks or stages");
  }
  const int experts = deployment_.ep * deployment_.moe_tp.value_or(1);
  const int world = deployment_.tp * deployment_.dp * deployment_.cp;
  if (deployment_.moe_tp ? experts != world : world % experts != 0) {
    throw UsageError("--ep", fmt::format("{} ranks of experts and {} of attention differ", experts, world),
                     "ep x moe-tp = tp x dp x cp");
  }
  const int gpus = world * deployment_.pp;
  const bool split = !options_.prefill_instances.empty() || !options_.decode_instances.empty();
  if (!split) {
    if (!options_.kv_link.empty()) {
      throw UsageError("--kv-link", "means nothing where prompts and outputs are computed together",
                       "add --prefill-instances and --decode-instances");
    }
    setup_.instances = options_.instances.empty() ? 1 : ranks(options_.instances, "--instances");
    gpus_ = gpus * setup_.instances;
    return;
  }
  read_split(gpus);
}

void ServeSession::read_split(int gpus) {
  const auto instances = [](const std::string& text, const char* flag) {
    return text.empty() ? 1 : static_cast<int>(parse_count(text, flag, 1, kMostServeRanks));
  };
  if (!options_.instances.empty()) {
    throw UsageError("--instances", "contradicts --prefill-instances and --decode-instances", "leave it out");
  }
  if (!options_.shared_prefix.empty()) {
    throw UsageError("--shared-prefix", "is not simulated where prefill is apart", "leave one out");
  }
  if (options_.kv_link.empty()) {
    throw UsageError("--kv-link", "is missing: caches move from prefill to decode", "e.g. --kv-link 50GB/s");
  }
  ServiceSplit& parts = setup_.split.emplace();
  parts.prefill_instances = instances(options_.prefill_instances, "--prefill-instances");
  parts.decode_instances = instances(options_.decode_instances, "--decode-instances");
  parts.link_bytes_per_s = parse_bytes_per_second(options_.kv_link, "--kv-link").value();
  if (parts.link_bytes_per_s <= 0) throw UsageError("--kv-link", "moves nothing", "e.g. --kv-link 50GB/s");
  gpus_ = gpus * (parts.prefill_instances + parts.decode_instances);
}

void ServeSession::read_goals() {
  if (!options_.ttft.empty()) setup_.ttft_goal_s = parse_seconds(options_.ttft, "--ttft").value();
  if (!options_.tpot.empty()) setup_.tpot_goal_s = parse_seconds(options_.tpot, "--tpot").value();
  if (!options_.front.empty()) front_s_ = parse_seconds(options_.front, "--front-end").value();
  if (!options_.price.empty()) price_ = parse_number(options_.price, "--price", 0, 1e9);
}

void ServeSession::finish_setup() {
  setup_.limits = served_.limits;
  if (setup_.split) {
    setup_.split->bytes_per_token = served_.cache_bytes_per_token;
    setup_.split->bytes_per_sequence = served_.state_bytes;
  }
  if (options_.shared_prefix.empty()) return;
  std::int64_t shortest = recorded_.empty() ? shortest_drawn(prompt_, range_ratio_) : recorded_.front().prompt;
  for (const ServiceRequest& request : recorded_) shortest = std::min(shortest, request.prompt);
  setup_.limits.shared_prefix = parse_count(options_.shared_prefix, "--shared-prefix", 0, shortest);
}

std::size_t ServeSession::usual_requests(const Asked& asked) const {
  if (requests_) return static_cast<std::size_t>(*requests_);
  if (!asked.clients) return static_cast<std::size_t>(kUsualRequests);
  return static_cast<std::size_t>(std::max(kLeastOfClients, kRequestsPerClient * *asked.clients));
}

std::vector<ServiceRequest> ServeSession::requests_of(const Asked& asked, std::size_t count) const {
  std::vector<ServiceRequest> requests = equal_requests(asked, count);
  // Of other numbers than the arrivals.
  if (range_ratio_ > 0) draw_lengths(requests, range_ratio_, seed_ ^ 0x6c656e677468ULL);
  if (urgent_ > 0) draw_urgent(requests, urgent_, seed_ ^ 0x75726765ULL);
  return requests;
}

std::vector<ServiceRequest> ServeSession::equal_requests(const Asked& asked, std::size_t count) const {
  if (!recorded_.empty()) return recorded_;
  if (asked.clients) return client_requests(*asked.clients, count);
  return poisson_requests(*asked.rate, count, prompt_, output_, seed_);
}

/// Clients of a service that has run for long are out of step: the first request of each, which is not measured, is
/// shortened as if it had begun before.
std::vector<ServiceRequest> ServeSession::client_requests(std::int64_t clients, std::size_t count) const {
  std::vector<ServiceRequest> requests = waiting_requests(count, prompt_, output_);
  const auto first = static_cast<std::size_t>(clients);
  if (warmup_of(count) < first) return requests;
  for (std::size_t i = 0; i < first; ++i) {
    requests[i].output = std::max<std::int64_t>(1, output_ * static_cast<std::int64_t>(i + 1) / clients);
  }
  return requests;
}

double ServeSession::front_of(const std::vector<ServiceRequest>& requests, IntervalEnd end) const {
  if (front_s_) return *front_s_;
  double prompts = 0;
  double outputs = 0;
  for (const ServiceRequest& request : requests) {
    prompts += static_cast<double>(request.prompt);
    outputs += static_cast<double>(request.output);
  }
  const auto mean = [&](double sum) {
    return static_cast<std::int64_t>(std::ceil(sum / static_cast<double>(requests.size())));
  };
  return front_seconds(served_, mean(prompts), mean(outputs), end);
}

/// More requests, where those simulated were hardly more than are in flight at once; 0: enough.
std::size_t ServeSession::enough_requests(const Asked& asked, const ServiceStudy& study, std::size_t count) const {
  if (requests_ || !asked.rate || !study.stable || !study.outcome) return 0;
  const double wanted =
      std::min(kRequestsPerInFlight * study.outcome->in_flight_mean, static_cast<double>(kMostUsualRequests));
  return wanted > static_cast<double>(count) ? static_cast<std::size_t>(wanted) : 0;
}

std::size_t ServeSession::warmup_of(std::size_t requests) const {
  if (warmup_) return static_cast<std::size_t>(std::min(*warmup_, static_cast<std::int64_t>(requests) - 1));
  return recorded_.empty() ? requests / kWarmupShare : 0;
}

std::vector<InputValue> ServeSession::inputs_of(const Asked& asked, const std::vector<ServiceRequest>& requests) const {
  const ServeOptions& o = options_;
  const auto count = [](std::size_t value) { return static_cast<std::int64_t>(value); };
  std::vector<InputValue> inputs{
      {"model", o.model, true},
      {"hw", o.hw, true},
      {"hw_folder", hw_folder_, false},
      {"backend", o.backend, o.backend != "vllm"},
      {"dtype", std::string(to_string(deployment_.dtype.value_or(architecture_.dtype))), !o.dtype.empty()}};
  const auto add = [&](const char* name, auto value, bool given) { inputs.push_back({name, value, given}); };
  const ServeOptions usual;
  add("kv_dtype", std::string(to_string(cache_dtype(architecture_, deployment_))), !o.kv_dtype.empty());
  if (!o.all_reduce.empty()) add("all_reduce", o.all_reduce, true);
  add("tp", static_cast<std::int64_t>(deployment_.tp), o.tp != usual.tp);
  add("ep", static_cast<std::int64_t>(deployment_.ep), o.ep != usual.ep);
  add("dp", static_cast<std::int64_t>(deployment_.dp), o.dp != usual.dp);
  add("pp", static_cast<std::int64_t>(deployment_.pp), o.pp != usual.pp);
  add("cp", static_cast<std::int64_t>(deployment_.cp), o.cp != usual.cp);
  const int moe_tp = expert_tensor_ranks(deployment_);
  add("moe_tp", static_cast<std::int64_t>(moe_tp), !o.moe_tp.empty());
  add("draft_tokens", static_cast<std::int64_t>(deployment_.draft_tokens), o.draft_tokens != usual.draft_tokens);
  if (o.eager) add("eager", true, true);
  if (!o.acceptance.empty()) add("acceptance_ratio", parse_number(o.acceptance, "--acceptance"), true);
  if (setup_.split) {
    add("prefill_instances", static_cast<std::int64_t>(setup_.split->prefill_instances), !o.prefill_instances.empty());
    add("decode_instances", static_cast<std::int64_t>(setup_.split->decode_instances), !o.decode_instances.empty());
    add("kv_link_bytes_per_s", setup_.split->link_bytes_per_s, true);
  } else {
    add("instances", static_cast<std::int64_t>(setup_.instances), !o.instances.empty());
  }
  if (asked.rate) add("rate_requests_per_s", *asked.rate, true);
  if (asked.clients) add("concurrency", *asked.clients, true);
  if (!o.arrivals.empty()) add("arrivals", o.arrivals, true);
  add("requests", count(requests.size()), !o.requests.empty());
  add("warmup_requests", count(warmup_of(requests.size())), !o.warmup.empty());
  add("urgent_ratio", urgent_, !o.urgent.empty());
  if (recorded_.empty()) {
    add("prompt_tokens", prompt_, !o.prompt.empty());
    add("output_tokens", output_, !o.output.empty());
    add("range_ratio", range_ratio_, o.range_ratio != usual.range_ratio);
  }
  add("shared_prefix_tokens", setup_.limits.shared_prefix, !o.shared_prefix.empty());
  if (asked.rate || urgent_ > 0 || range_ratio_ > 0)
    add("seed", static_cast<std::int64_t>(seed_), o.seed != usual.seed);
  add("max_batched_tokens", setup_.limits.chunk_tokens, o.batched_tokens != usual.batched_tokens);
  add("max_sequences", setup_.limits.sequences / deployment_.dp, o.sequences != usual.sequences);
  add("kv_block_tokens", deployment_.kv_block_tokens, o.block != usual.block);
  add("memory_ratio", parse_number(o.memory_ratio, "--memory-ratio"), o.memory_ratio != usual.memory_ratio);
  add("step_law", o.step_law, o.step_law != usual.step_law);
  add("load", o.load, o.load != usual.load);
  inputs.push_back({"front_end_s", {}, front_s_.has_value()});
  if (served_.status == Status::ok) inputs.back().value = front_of(requests, IntervalEnd::middle);
  if (setup_.ttft_goal_s) add("ttft_goal_s", *setup_.ttft_goal_s, true);
  if (setup_.tpot_goal_s) add("tpot_goal_s", *setup_.tpot_goal_s, true);
  if (price_) add("price_per_gpu_hour", *price_, true);
  return inputs;
}

}  // namespace moecast
