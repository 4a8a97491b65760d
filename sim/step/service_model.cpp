#include "sim/step/service_model.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace moecast {
namespace {

/// Host part of a first token: of a model without experts, over that of one with experts. It does not grow with layers:
/// at few requests DeepSeek's 61 take 0.12 to 0.25 s beyond the kernels, Qwen3-235B's 94 take 0.11 to 0.20 s.
constexpr double kDenseShare = 0.25;
constexpr int kRounds = 300;
constexpr double kClose = 1e-10;

/// In flight, beside one.
double others(const ServiceTerms& t) {
  return std::max(0.0, (t.prompts.replicas > 1 ? t.prompts.in_flight : t.requests) - 1);
}

/// Steps with prompts and steps without.
struct StepMix {
  double prompts_a_second = 0;  ///< that come, on all replicas
  double decode_s = 0;          ///< a step without prompts
  double stall_s = 0;           ///< by which prompts lengthen a step

  [[nodiscard]] double long_s() const { return decode_s + stall_s; }
  /// Share of the steps that compute prompts: those before which some came.
  [[nodiscard]] double with_prompts() const {
    const double after_decode = -std::expm1(-prompts_a_second * decode_s);
    return after_decode / (after_decode + std::exp(-prompts_a_second * long_s()));
  }
  /// Prompts of a step that computes any. One that does is longer, so more come meanwhile.
  [[nodiscard]] double together() const {
    const double share = with_prompts();
    return share > 0 ? prompts_a_second * (stall_s + decode_s / share) : 1;
  }
  /// That a prompt waits for the end of the step in which it comes.
  [[nodiscard]] double rest_s() const {
    const double share = with_prompts();
    const double mean = share * long_s() + (1 - share) * decode_s;
    return (share * long_s() * long_s() + (1 - share) * decode_s * decode_s) / (2 * mean);
  }
};

/// Of a step that is full of prompts.
double full_stall_s(const ServiceTerms& t) {
  const double prompt = t.prompts.replicas > 1 ? t.prompts.all_s : t.one_stall_s();
  return prompt * t.prompts.of_several(t.prompts.most);
}

double full_shared_s(const ServiceTerms& t) { return t.prompts.replicas > 1 ? t.prompts.shared_s : t.shared_s; }

/// What prompts take of those that generate.
struct Stalls {
  double prompt_s = 0;    ///< of the prompts that are computed together, each time
  double ahead_s = 0;     ///< that a prompt ahead takes
  double shared_s = 0;    ///< of that: weights that the step reads anyhow
  double together = 1;    ///< prompts, each time
  double held_steps = 0;  ///< for which a prompt waits until replicas of attention have one each
};

/// Of a request that generates: prompts of others lengthen as many steps as it takes to compute them, at most all.
double mean_step_s(const ServiceTerms& t, const StepMix& mix, double together) {
  const double others_a_second = mix.prompts_a_second * others(t) / (others(t) + 1);
  const double come = others_a_second * mix.decode_s;
  const double left = together - others_a_second * mix.stall_s;
  return mix.decode_s + (left > come ? come / left : 1) * mix.stall_s;
}

/// Prompts come as requests end, and those of one step are computed together, as far as a step takes them; an engine
/// may hold them back until every replica of attention has one, for some steps at most.
Stalls stalls_of(const ServiceTerms& t, const StepMix& mix) {
  Stalls stalls{t.one_stall_s(), t.one_stall_s()};
  const int dp = t.prompts.replicas;
  stalls.together = std::min(mix.together(), dp * t.prompts.most);
  if (t.prompts.wait_steps > 0 && stalls.together < dp && others(t) > 0) {
    const double arriving = mix.prompts_a_second * mix.decode_s;
    const double held = std::min(t.prompts.wait_steps, (dp - stalls.together) / arriving);
    stalls.together += arriving * held;
    // The first of them waits all of it, the others come meanwhile.
    stalls.held_steps = held * (1 + (stalls.together - 1) / 2) / stalls.together;
  }
  const double replicas = std::min<double>(stalls.together, dp);
  const double spread = dp > 1 ? (replicas - 1) / (dp - 1) : 0;
  if (dp > 1) stalls.ahead_s = t.one_stall_s() + (t.prompts.all_s - t.one_stall_s()) * spread;
  stalls.shared_s = t.shared_s + (t.prompts.shared_s - t.shared_s) * spread;
  stalls.prompt_s = stalls.ahead_s * t.prompts.of_several(std::max(1.0, stalls.together / dp));
  return stalls;
}

/// From one request of a client to the next, without a pause: how long it is says how many prompts come a second, and
/// these say how long it is.
class Cycle {
 public:
  Cycle(const ServiceTerms& terms, const EngineService& law) : t_(terms), law_(law) {}

  ServiceTimes solve() {
    if (others(t_) <= 0) return at(std::numeric_limits<double>::infinity());
    // Excess of what follows from a length over the length: falls as it grows. Illinois' method on its logarithm.
    const auto excess = [this](double log_s, ServiceTimes& times) {
      times = at(std::exp(log_s));
      return std::log(times.ttft_s + (t_.output - 1) * times.tpot_s) - log_s;
    };
    ServiceTimes times;
    double low = std::log(t_.prefill_s + (t_.output - 1) * (decode_s(0) / t_.tokens_a_step)) - 1;
    double above = excess(low, times);
    double high = low + std::max(1.0, above);
    double below = excess(high, times);
    while (below > 0) {
      low = high;
      above = below;
      high += std::max(1.0, below);
      below = excess(high, times);
    }
    int side = 0;
    for (int round = 0; round < kRounds && high - low > kClose; ++round) {
      const double middle = (low * below - high * above) / (below - above);
      const double found = excess(middle, times);
      if (std::abs(found) < kClose) break;
      if (found > 0) {
        low = middle;
        above = found;
        if (side > 0) below /= 2;
        side = 1;
      } else {
        high = middle;
        below = found;
        if (side < 0) above /= 2;
        side = -1;
      }
    }
    return times;
  }

 private:
  /// A step in which that share of the others generates too.
  [[nodiscard]] double decode_s(double generating) const {
    FewerDecodes above{t_.requests, t_.decode_s};
    const double requests = t_.requests - others(t_) * (1 - generating) / t_.prompts.replicas;
    double kernels = above.seconds;
    for (const FewerDecodes& below : t_.fewer) {
      if (requests >= above.requests || below.requests <= 0) break;
      const double share = std::max(0.0, (requests - below.requests) / (above.requests - below.requests));
      kernels = below.seconds + share * (above.seconds - below.seconds);
      above = below;
    }
    return law_.kernel_factor * kernels + law_.layer_s * t_.layers + law_.step_s * t_.stages +
           law_.request_s * requests;
  }

  /// Of the others in flight, a request that generates meets the share that generate too.
  ServiceTimes at(double cycle_s) {
    ServiceTimes times;
    times.generating = generating_;
    StepMix mix;
    mix.prompts_a_second = (others(t_) + 1) / cycle_s;
    mix.stall_s = stall_s_;
    Stalls stalls;
    for (int round = 0; round < kRounds; ++round) {
      const double before = mix.stall_s;
      mix.decode_s = decode_s(times.generating);
      stalls = stalls_of(t_, mix);
      mix.stall_s = law_.stall_share * (stalls.prompt_s - stalls.shared_s);
      times.tpot_s = mean_step_s(t_, mix, stalls.together) / t_.tokens_a_step;
      const double share = others(t_) > 0 ? std::min(1.0, (t_.output - 1) * times.tpot_s / cycle_s) : 1;
      const bool found =
          std::abs(share - times.generating) < kClose && std::abs(before - mix.stall_s) < kClose * before;
      times.generating = share;
      if (found) break;
    }
    times.ttft_s = ttft_s(mix, stalls, times.tpot_s);
    generating_ = times.generating;
    stall_s_ = mix.stall_s;
    return times;
  }

  [[nodiscard]] double ttft_s(const StepMix& mix, const Stalls& stalls, double tpot_s) const {
    // Who comes with all others waits for half of them, and for the steps that they take.
    const double first_wave = (t_.requests - 1) / 2 *
                              (stalls.ahead_s * t_.prompts.of_several(t_.prompts.most) + mix.decode_s) /
                              t_.prompts.most;
    double seconds = law_.first_token_s * (t_.moe_layers > 0 ? 1 : kDenseShare) + mix.decode_s +
                     law_.prefill_factor * (t_.prefill_s + stalls.prompt_s - stalls.ahead_s + t_.burst * first_wave);
    if (others(t_) <= 0) return seconds;
    seconds += mix.rest_s() + (stalls.held_steps + t_.wait_steps) * tpot_s * t_.tokens_a_step;
    // Steps that are full of prompts take no more of them: whoever is in flight beyond that waits for the first token.
    const double full_s = mix.decode_s + law_.stall_share * (full_stall_s(t_) - full_shared_s(t_));
    const double least_s = (others(t_) + 1) * full_s / (t_.prompts.replicas * t_.prompts.most);
    return std::max(seconds, least_s - (t_.output - 1) * tpot_s);
  }

  const ServiceTerms& t_;
  const EngineService& law_;
  double generating_ = 1;  ///< of the last length: the next one is near
  double stall_s_ = 0;
};

}  // namespace

ServiceTimes service_times(const ServiceTerms& t, const EngineService& law) {
  ServiceTimes times = Cycle(t, law).solve();
  // Little's law: whoever waits for room in the cache is served as others leave.
  if (t.queued > 0) times.ttft_s += t.queued / (others(t) + 1) * (times.ttft_s + (t.output - 1) * times.tpot_s);
  return times;
}

double prefill_share(const ServiceTerms& t, double tpot) {
  const double in_flight = others(t) + 1;
  const Stalls stalls = stalls_of(t, {in_flight / (t.output * tpot), t.decode_s, t.one_stall_s()});
  return in_flight / stalls.together * stalls.prompt_s / (t.output * tpot);
}

}  // namespace moecast
