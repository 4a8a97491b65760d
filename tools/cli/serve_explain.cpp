#include "tools/cli/serve_explain.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <utility>

#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "tools/cli/output.h"
#include "tools/cli/serve_session.h"
#include "tools/loop/interrupt.h"

namespace moecast {
namespace {

constexpr const char* kParts[] = {"wait in the queue", "prompt, first token", "other tokens"};
constexpr const char* kPartKeys[] = {"queue_wait_s", "prefill_s", "output_s"};
constexpr const char* kShareKeys[] = {"queue_wait_ratio", "prefill_ratio", "output_ratio"};

struct Candidate {
  std::string name;
  std::string title;
  ServeOptions options;
};

int ranks(const std::string& text) { return static_cast<int>(parse_count(text, "ranks", 1)); }

std::vector<Candidate> candidates_of(const ServeOptions& asked) {
  std::vector<Candidate> all;
  const auto add = [&](const char* name, const std::string& title, auto change) {
    ServeOptions options = asked;
    change(options);
    all.push_back({name, title, std::move(options)});
  };
  const int tp = ranks(asked.tp);
  const int dp = ranks(asked.dp);
  const int pp = ranks(asked.pp);
  const int cp = ranks(asked.cp);
  const auto split = [&](int new_tp, int new_dp) {
    add("tp_dp", fmt::format("tp x dp {} x {} instead of {} x {}", new_tp, new_dp, tp, dp), [&](ServeOptions& o) {
      o.tp = std::to_string(new_tp);
      o.dp = std::to_string(new_dp);
      o.moe_tp.clear();
    });
  };
  if (tp % 2 == 0) split(tp / 2, dp * 2);
  if (dp % 2 == 0) split(tp * 2, dp / 2);
  // Experts stay spread as they are, as far as the ranks of a stage allow.
  const auto stages = [&](int new_tp, int new_pp) {
    const int old_ep = ranks(asked.ep);
    const int ep = old_ep == tp * dp ? new_tp * dp : std::gcd(old_ep, new_tp * dp);
    add("tp_pp", fmt::format("tp x pp {} x {} instead of {} x {}", new_tp, new_pp, tp, pp), [&](ServeOptions& o) {
      o.tp = std::to_string(new_tp);
      o.pp = std::to_string(new_pp);
      o.ep = std::to_string(ep);
      o.moe_tp.clear();
    });
  };
  if (cp == 1 && tp % 2 == 0) stages(tp / 2, pp * 2);
  if (cp == 1 && pp % 2 == 0) stages(tp * 2, pp / 2);
  for (const int ep : {1, tp * dp * cp}) {
    if (ep == ranks(asked.ep) || (ep == 1 && tp * dp * cp == 1)) continue;
    add("ep", fmt::format("ep {} instead of {}", ep, asked.ep), [&](ServeOptions& o) {
      o.ep = std::to_string(ep);
      o.moe_tp.clear();
    });
  }
  const auto number = [&](const char* name, const char* title, std::string ServeOptions::* text, double factor) {
    const auto now = parse_count(asked.*text, name, 1);
    const auto then = static_cast<std::int64_t>(static_cast<double>(now) * factor);
    if (then < 1) return;
    add(name, fmt::format("{} {} instead of {}", title, then, now),
        [&](ServeOptions& o) { o.*text = std::to_string(then); });
  };
  if (asked.eager) {
    add("eager", "graphs that are replayed instead of kernels launched one by one",
        [](ServeOptions& o) { o.eager = false; });
  }
  number("max_batched_tokens", "tokens a step", &ServeOptions::batched_tokens, 0.25);
  number("max_batched_tokens", "tokens a step", &ServeOptions::batched_tokens, 4);
  number("max_sequences", "sequences a rank", &ServeOptions::sequences, 0.5);
  number("max_sequences", "sequences a rank", &ServeOptions::sequences, 2);
  return all;
}

std::optional<double> ttft_of(const ServiceAnswer& answer) {
  const ServiceOutcome* outcome = outcome_of(answer);
  return outcome != nullptr ? std::optional(outcome->ttft.p50) : std::nullopt;
}

std::optional<double> tpot_of(const ServiceAnswer& answer) {
  const ServiceOutcome* outcome = outcome_of(answer);
  return outcome != nullptr && outcome->tpot ? std::optional(outcome->tpot->p50) : std::nullopt;
}

std::optional<double> saturation_of(const ServiceAnswer& answer) {
  return answer.status == Status::ok ? answer.middle.saturation_per_s : std::nullopt;
}

/// Parts of the mean time from arrival to the last token, which they add up to.
std::optional<std::array<double, 3>> parts_of(const ServiceAnswer& answer) {
  const ServiceOutcome* outcome = outcome_of(answer);
  if (outcome == nullptr) return std::nullopt;
  return std::array{outcome->wait.mean, outcome->ttft.mean - outcome->wait.mean,
                    outcome->end_to_end.mean - outcome->ttft.mean};
}

using ValueOf = std::optional<double> (*)(const ServiceAnswer&);

struct Aim {
  const char* name;
  const char* title;
  ValueOf value;
  bool more;  ///< is better
};

constexpr Aim kAims[] = {{"ttft", "shorter TTFT", ttft_of, false},
                         {"tpot", "shorter TPOT", tpot_of, false},
                         {"saturation", "more requests at saturation", saturation_of, true}};

/// nullptr where none is better than what was asked.
const ServiceChange* best_of(const Aim& aim, const ServiceAnswer& asked, const std::vector<ServiceChange>& changes) {
  const ServiceChange* best = nullptr;
  std::optional<double> reached = aim.value(asked);
  for (const ServiceChange& change : changes) {
    const std::optional<double> value = aim.value(change.answer);
    if (!value || (reached && (aim.more ? *value <= *reached : *value >= *reached))) continue;
    best = &change;
    reached = value;
  }
  return best;
}

}  // namespace

std::vector<ServiceChange> change_service(const ServeOptions& options, const std::function<void(double)>& progress) {
  std::vector<ServiceChange> changes;
  const std::vector<Candidate> candidates = candidates_of(options);
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const auto done = [&](double share) {
      progress((static_cast<double>(i) + share) / static_cast<double>(candidates.size()));
    };
    try {
      const ServeSession session(candidates[i].options);
      std::optional<ServiceAnswer> answer = session.answer(session.asked().front(), done);
      if (!answer || InterruptGuard::flag()) break;
      changes.push_back({candidates[i].name, candidates[i].title, std::move(*answer)});
    } catch (const InputError&) {
      continue;  // the model is not divided that way
    } catch (const UsageError&) {
      continue;
    }
  }
  return changes;
}

std::string service_explanation(const ServiceAnswer& answer, const std::vector<ServiceChange>& changes, Format format) {
  std::string text;
  if (const auto parts = parts_of(answer)) {
    const double whole = (*parts)[0] + (*parts)[1] + (*parts)[2];
    Table table{{"part of a request", "mean", "share"}, {}};
    for (std::size_t i = 0; i < parts->size(); ++i) {
      table.rows.push_back({kParts[i], seconds_text((*parts)[i]), format_percent((*parts)[i] / whole)});
    }
    text += "\nWhere a request's time goes\n" + render_table(table, format);
  }
  Table table{{"simulated again", "status", "TTFT P50", "TPOT P50", "requests/s at saturation"}, {}};
  const auto row = [&](const std::string& title, const ServiceAnswer& one) {
    table.rows.push_back({title, service_status(one), format_or_dash(ttft_of(one), seconds_text),
                          format_or_dash(tpot_of(one), seconds_text), format_or_dash(saturation_of(one), rate_text)});
  };
  row("as asked", answer);
  for (const ServiceChange& change : changes) row(change.title, change.answer);
  text += "\nWhat would help on as many GPUs\n" + render_table(table, format) + "\n";
  for (const Aim& aim : kAims) {
    const ServiceChange* best = best_of(aim, answer, changes);
    text += fmt::format("{}: {}\n", aim.title, best != nullptr ? best->title : "nothing of these");
  }
  return text;
}

Json service_explanation_json(const ServiceAnswer& answer, const std::vector<ServiceChange>& changes) {
  Json json;
  const auto parts = parts_of(answer);
  const double whole = parts ? (*parts)[0] + (*parts)[1] + (*parts)[2] : 0;
  for (std::size_t i = 0; i < std::size(kParts); ++i) {
    json["request"][kPartKeys[i]] = parts ? Json((*parts)[i]) : Json();
    json["request"][kShareKeys[i]] = parts ? Json((*parts)[i] / whole) : Json();
  }
  json["changes"] = Json::array();
  for (const ServiceChange& change : changes) {
    json["changes"].push_back({{"name", change.name},
                               {"title", change.title},
                               {"status", service_status(change.answer)},
                               {"ttft_p50_s", number_or_null(ttft_of(change.answer))},
                               {"tpot_p50_s", number_or_null(tpot_of(change.answer))},
                               {"saturation_requests_per_s", number_or_null(saturation_of(change.answer))}});
  }
  for (const Aim& aim : kAims) {
    const ServiceChange* best = best_of(aim, answer, changes);
    json["helps_most"][aim.name] = best != nullptr ? Json(best->title) : Json();
  }
  return json;
}

}  // namespace moecast
