#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "models/plan/memory.h"
#include "models/plan/speculation.h"
#include "tools/cli/command.h"
#include "tools/cli/data_folders.h"
#include "tools/cli/hardware_choice.h"
#include "tools/cli/model_choice.h"
#include "tools/cli/output.h"
#include "tools/cli/query_answers.h"
#include "tools/cli/query_options.h"
#include "tools/loop/recommend.h"

namespace moecast {
namespace {

struct RecommendOptions {
  std::string model;
  std::string hw;
  std::string gpus = "1-8";
  std::string pp = "1-8*2";
  std::string cp = "1";
  std::string backend = "vllm";
  std::string dtype, kv_dtype, all_reduce, max_context, draft_tokens = "0", acceptance;
  std::string prompt = "1024";
  std::string output = "1024";
  std::string ttft, tpot;
  std::string price;
  std::string top = "10";
  bool sure = false;
  bool front = false;
  std::string data;
  std::string format = "table";
};

/// "h200-sxm=3.5,b200-sxm=6" for the machines asked about.
std::map<std::string, double> parse_prices(const std::string& text, const std::vector<std::string>& machines) {
  std::map<std::string, double> prices;
  if (text.empty()) return prices;
  for (const std::string& one : split_list(text, "--price")) {
    const std::size_t equals = one.find('=');
    if (equals == std::string::npos) throw UsageError("--price", "is not NAME=PRICE,...", "e.g. --price h200-sxm=3.5");
    const std::string name = one.substr(0, equals);
    if (std::ranges::find(machines, name) == machines.end()) {
      throw UsageError("--price", fmt::format("\"{}\" is none of the machines of --hw", name));
    }
    prices[name] = parse_number(one.substr(equals + 1), "--price", 1e-9, 1e9);
  }
  for (const std::string& machine : machines) {
    if (!prices.contains(machine))
      throw UsageError("--price", "lacks " + machine, "give one for every machine of --hw");
  }
  return prices;
}

std::string rank_text(const Deployment& d) {
  std::string text = fmt::format("tp{}", d.tp);
  if (d.dp > 1) text += fmt::format(" dp{}", d.dp);
  if (d.pp > 1) text += fmt::format(" pp{}", d.pp);
  if (d.cp > 1) text += fmt::format(" cp{}", d.cp);
  text += fmt::format(" ep{}", d.ep);
  if (d.moe_tp.value_or(1) > 1 && d.ep > 1) text += fmt::format(" moe_tp{}", *d.moe_tp);
  return text;
}

std::vector<int> degrees(const std::string& text, const char* flag) {
  std::vector<int> all;
  for (const std::int64_t degree : parse_range(text, flag, 1, 1024)) all.push_back(static_cast<int>(degree));
  return all;
}

Json candidate_json(const ServiceCandidate& c) {
  return {{"hw", c.machine},
          {"gpus", c.gpus},
          {"tp", c.deployment.tp},
          {"dp", c.deployment.dp},
          {"pp", c.deployment.pp},
          {"cp", c.deployment.cp},
          {"ep", c.deployment.ep},
          {"moe_tp", c.deployment.moe_tp.value_or(1)},
          {"concurrency", c.concurrency},
          {"tpot_s", c.tpot_s},
          {"tpot_low_s", c.tpot_low_s},
          {"tpot_high_s", c.tpot_high_s},
          {"ttft_s", c.ttft_s},
          {"ttft_low_s", c.ttft_low_s},
          {"ttft_high_s", c.ttft_high_s},
          {"tokens_per_s", c.tokens_per_s},
          {"tokens_per_gpu_s", c.tokens_per_gpu_s},
          {"cost_per_million_tokens", c.cost_per_million ? Json(*c.cost_per_million) : Json()},
          {"memory_bytes", c.memory_bytes},
          {"pareto", c.pareto}};
}

std::string as_text(const Recommendation& result, const std::vector<const ServiceCandidate*>& shown, bool priced,
                    Format format) {
  Table table{{"hw", "GPUs", "ranks", "requests", "TPOT", "TTFT", "tokens/s a GPU", "memory", "front"}, {}};
  if (priced) table.columns.insert(table.columns.begin() + 7, "cost/M tokens");
  for (const ServiceCandidate* c : shown) {
    std::vector<std::string> row{
        c->machine,
        std::to_string(c->gpus),
        rank_text(c->deployment),
        std::to_string(c->concurrency),
        fmt::format("{} ({} to {})", format_seconds(Seconds(c->tpot_s)), format_seconds(Seconds(c->tpot_low_s)),
                    format_seconds(Seconds(c->tpot_high_s))),
        format_seconds(Seconds(c->ttft_s)),
        fmt::format("{:.0f}", c->tokens_per_gpu_s),
        format_bytes(Bytes(c->memory_bytes)),
        c->pareto ? "*" : ""};
    if (priced) row.insert(row.begin() + 7, fmt::format("{:.3f}", *c->cost_per_million));
    table.rows.push_back(std::move(row));
  }
  std::string text;
  if (shown.empty()) {
    text = "no deployment meets the goals\n";
  } else {
    text = render_table(table, format);
    text += "\n* nothing else has a shorter TPOT with as few GPUs and as many tokens for them; cheapest first\n";
  }
  text += fmt::format("{} loads examined, {} meet the goals\n", result.examined, result.feasible.size());
  for (const auto& [reason, count] : result.refused) {
    text += fmt::format("refused: {} deployment{}: {}\n", count, count == 1 ? "" : "s", reason);
  }
  for (const std::string& note : result.notes) text += "note: " + note + "\n";
  return text;
}

int run(const RecommendOptions& options) {
  const Format format = parse_format(options.format);
  const DataFolders folders = find_data_folders(options.data);
  if (options.model.empty())
    throw UsageError("--model", "is missing", "a name of moecast list models, or a config.json");
  if (options.hw.empty()) throw UsageError("--hw", "is missing", "e.g. --hw h200-sxm,b200-sxm");
  Architecture architecture = load_model(options.model, folders);
  if (!options.max_context.empty()) {
    architecture.max_context = parse_count(options.max_context, "--max-context", 1, 100'000'000);
  }
  Deployment common;
  common.backend = options.backend;
  if (!options.dtype.empty()) common.dtype = parse_dtype_flag(options.dtype);
  if (!options.kv_dtype.empty()) common.kv_dtype = parse_dtype_flag(options.kv_dtype, "--kv-dtype");
  common.all_reduce = parse_all_reduce(options.all_reduce);
  ServiceGoals goals;
  goals.prompt = static_cast<double>(parse_count(options.prompt, "--prompt", 1, 100'000'000));
  goals.output = static_cast<double>(parse_count(options.output, "--output", 1, 100'000'000));
  const auto goal = [](const std::string& text, const char* flag, std::optional<double>& into) {
    if (text.empty()) return;
    into = parse_seconds(text, flag).value();
    if (*into <= 0) throw UsageError(flag, "nothing is answered in no time", "e.g. " + std::string(flag) + " 20ms");
  };
  goal(options.ttft, "--ttft", goals.ttft_s);
  goal(options.tpot, "--tpot", goals.tpot_s);
  const std::vector<std::int64_t> gpus = parse_range(options.gpus, "--gpus", 1, 1024);
  goals.fewest_gpus = gpus.front();
  goals.most_gpus = gpus.back();
  goals.stages = degrees(options.pp, "--pp");
  goals.contexts = degrees(options.cp, "--cp");
  goals.sure = options.sure;
  goals.draft_tokens = static_cast<int>(parse_count(options.draft_tokens, "--draft-tokens", 0, 64));
  if (!options.acceptance.empty()) goals.acceptance = parse_number(options.acceptance, "--acceptance", 0, 1);
  Deployment guesses;
  guesses.draft_tokens = goals.draft_tokens;
  Workload generates;
  generates.acceptance = goals.acceptance;
  try {
    require_drafts(architecture, guesses, generates);
  } catch (const InputError& error) {
    blame_flag(error, options.model);
  }
  const std::vector<std::string> names = split_list(options.hw, "--hw");
  const std::map<std::string, double> prices = parse_prices(options.price, names);
  std::vector<ServiceMachine> machines;
  for (const std::string& name : names) {
    const HardwareChoice hardware = choose_hardware(name, folders);
    if (!hardware.gpu) {
      throw UsageError("--hw", fmt::format("{} is a CPU: no serving engine is known on it", name),
                       "name GPUs: moecast list hw");
    }
    ServiceMachine machine{name, hardware.folder, std::nullopt};
    if (const auto price = prices.find(name); price != prices.end()) machine.price_per_hour = price->second;
    machines.push_back(std::move(machine));
  }
  Recommendation result;
  try {
    result = recommend(architecture, common, machines, folders.engines, goals);
  } catch (const InputError& error) {
    blame_flag(error, options.model);
  }
  const std::int64_t top = parse_count(options.top, "--top", 1, 1'000'000);
  std::vector<const ServiceCandidate*> shown;
  for (const ServiceCandidate& c : result.feasible) {
    if (static_cast<std::int64_t>(shown.size()) < top && (!options.front || c.pareto)) shown.push_back(&c);
  }
  if (format == Format::table || format == Format::md) {
    write_stdout(as_text(result, shown, !prices.empty(), format));
  } else {
    std::vector<Json> records;
    for (const ServiceCandidate* c : shown) records.push_back(candidate_json(*c));
    if (format == Format::json) {
      Json json{{"deployments", records}, {"examined", result.examined}, {"feasible", result.feasible.size()}};
      json["refused"] = Json::object();
      for (const auto& [reason, count] : result.refused) json["refused"][reason] = count;
      json["notes"] = result.notes;
      json["inputs"] = {{"model", options.model},
                        {"hw", names},
                        {"backend", options.backend},
                        {"kv_dtype", std::string(to_string(cache_dtype(architecture, common)))},
                        {"all_reduce", options.all_reduce.empty() ? Json() : Json(options.all_reduce)},
                        {"prompt_tokens", goals.prompt},
                        {"output_tokens", goals.output},
                        {"ttft_goal_s", goals.ttft_s ? Json(*goals.ttft_s) : Json()},
                        {"tpot_goal_s", goals.tpot_s ? Json(*goals.tpot_s) : Json()},
                        {"fewest_gpus", goals.fewest_gpus},
                        {"most_gpus", goals.most_gpus},
                        {"pp", goals.stages},
                        {"cp", goals.contexts},
                        {"draft_tokens", goals.draft_tokens},
                        {"acceptance", goals.acceptance ? Json(*goals.acceptance) : Json()},
                        {"sure", goals.sure}};
      write_stdout(render_records({json}, format, true));
    } else {
      write_stdout(render_records(records, format, false));
    }
  }
  return result.feasible.empty() ? 1 : 0;
}

}  // namespace

void add_recommend_command(const Command& app, CommandLine& line) {
  const auto options = std::make_shared<RecommendOptions>();
  const Command command =
      app.add_subcommand("recommend", "The cheapest deployments that meet goals of TTFT, TPOT and memory");
  add_text_option(command, "--model", options->model, "NAME|FILE", "model: a name of `list models` or a config.json");
  add_text_option(command, "--hw", options->hw, "NAMES", "GPUs to choose from: names of `list hw`, or folders");
  add_text_option(command, "--gpus", options->gpus, "RANGE", "GPUs of an instance, powers of two of it (default 1-8)");
  add_text_option(command, "--pp", options->pp, "RANGE", "pipeline stages to examine (default 1-8*2)");
  add_text_option(command, "--cp", options->cp, "RANGE",
                  "context-parallel ranks to examine (default 1: what engines exchange is assumed)");
  add_text_option(command, "--backend", options->backend, "ENGINE", "vllm (default), sglang, trtllm");
  add_text_option(command, "--dtype", options->dtype, "FORMAT", "of the weights (default: the model's)");
  add_text_option(command, "--kv-dtype", options->kv_dtype, "FORMAT",
                  "of the KV cache (default: the model's, else that of activations)");
  add_text_option(command, "--all-reduce", options->all_reduce, "ENGINE", kAllReduceHelp);
  add_text_option(command, "--max-context", options->max_context, "COUNT",
                  "tokens that a sequence may have, where the model was stretched (default: what it is made for)");
  add_text_option(command, "--prompt", options->prompt, "COUNT", "tokens of a prompt (default 1024)");
  add_text_option(command, "--output", options->output, "COUNT", "tokens generated for it (default 1024)");
  add_text_option(command, "--draft-tokens", options->draft_tokens, "COUNT",
                  "that the model's layers of multi-token prediction guess ahead of each step (default 0)");
  add_text_option(command, "--acceptance", options->acceptance, "P",
                  "how often a guess is right where those before it were, 0 to 1");
  add_text_option(command, "--ttft", options->ttft, "TIME", "goal: time to the first token, e.g. 500ms");
  add_text_option(command, "--tpot", options->tpot, "TIME", "goal: time of an output token, e.g. 20ms");
  add_text_option(command, "--price", options->price, "NAME=PRICE,...", "of a GPU and hour: cost of a million tokens");
  command.add_flag("--sure", options->sure, "goals must hold at the upper end of the 90 % interval");
  command.add_flag("--front", options->front, "the Pareto front only");
  add_text_option(command, "--top", options->top, "COUNT", "deployments to show (default 10)");
  add_text_option(command, "--data", options->data, "FOLDER", "data folder (default: beside the program)");
  add_text_option(command, "--format", options->format, "FORMAT", "table (default), md, csv, json, jsonl");
  command.footer(
      "Equal requests follow each other without a pause; so many are in flight. Exit code 1 when nothing meets the "
      "goals.\n\n"
      "Examples:\n"
      "  moecast recommend --model qwen3-235b-a22b --hw h200-sxm --gpus 4-8 --dtype fp8_block --tpot 20ms --ttft 1s\n"
      "  moecast recommend --model deepseek-v3 --hw h100-sxm,h200-sxm,b200-sxm --gpus 8-64 --tpot 30ms --front\n"
      "  moecast recommend --model qwen3-235b-a22b --hw h200-sxm --gpus 8 --prompt 100000 --cp 1-8*2 --ttft 10s\n"
      "  moecast recommend --model qwen3-30b-a3b --hw h100-sxm,h200-sxm --price h100-sxm=2.5,h200-sxm=3.5 --sure\n");
  command.callback([options, &line] { line.run = [options] { return run(*options); }; });
}

}  // namespace moecast
