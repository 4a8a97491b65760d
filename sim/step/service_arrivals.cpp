#include "sim/step/service_arrivals.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "hwprofiles/csv_table.h"
#include "models/core/error.h"
#include "models/routing/random.h"

namespace moecast {
namespace {

constexpr double kLatestArrival = 1e9;  ///< s: thirty years
constexpr double kMostPromptTokens = 1e9;
constexpr std::int64_t kMostRequests = 5'000'000;

std::int64_t whole_tokens(const CsvRow& row, std::size_t column, std::string_view name) {
  const double tokens = row.number(column, 1, kMostPromptTokens);
  if (tokens != std::floor(tokens)) {
    throw InputError(row.where(), fmt::format("column {}: {} is no whole number of tokens", name, tokens));
  }
  return static_cast<std::int64_t>(tokens);
}

}  // namespace

std::vector<ServiceRequest> poisson_requests(double rate_per_s, std::size_t count, std::int64_t prompt,
                                             std::int64_t output, std::uint64_t seed) {
  if (!(rate_per_s > 0) || !std::isfinite(rate_per_s)) {
    throw UsageError("rate", "must be a positive number of requests a second");
  }
  if (count < 1 || prompt < 1 || output < 1) throw UsageError("requests", "requests and tokens must be at least 1");
  Random random(seed);
  std::vector<ServiceRequest> requests(count);
  double now = 0;
  for (ServiceRequest& request : requests) {
    now -= std::log1p(-random.uniform()) / rate_per_s;
    request = {now, prompt, output};
  }
  return requests;
}

std::vector<ServiceRequest> waiting_requests(std::size_t count, std::int64_t prompt, std::int64_t output) {
  return std::vector<ServiceRequest>(count, {0, prompt, output});
}

void draw_lengths(std::vector<ServiceRequest>& requests, double ratio, std::uint64_t seed) {
  if (!(ratio >= 0) || ratio > 1) throw UsageError("range ratio", "is a share of the lengths: 0 to 1");
  Random random(seed);
  const auto draw = [&](std::int64_t& tokens) {
    const double factor = 1 + ratio * (2 * random.uniform() - 1);
    tokens = std::max<std::int64_t>(1, std::llround(factor * static_cast<double>(tokens)));
  };
  for (ServiceRequest& request : requests) {
    draw(request.prompt);
    draw(request.output);
  }
}

void draw_urgent(std::vector<ServiceRequest>& requests, double share, std::uint64_t seed) {
  if (!(share >= 0) || share > 1) throw UsageError("urgent", "is a share of requests: 0 to 1");
  Random random(seed);
  for (ServiceRequest& request : requests) request.priority = random.uniform() < share ? 1 : 0;
}

std::vector<ServiceRequest> read_requests(const std::string& path) {
  static constexpr std::array<std::string_view, 3> kColumns{"arrival_s", "prompt_tokens", "output_tokens"};
  std::vector<ServiceRequest> requests;
  const auto add = [&](const CsvRow& row) {
    ServiceRequest request;
    request.arrival_s = row.number(0, 0, kLatestArrival);
    if (!requests.empty() && request.arrival_s < requests.back().arrival_s) {
      throw InputError(
          row.where(),
          fmt::format("arrives at {} s, the request before it at {} s", request.arrival_s, requests.back().arrival_s),
          "sort the rows by arrival_s");
    }
    request.prompt = whole_tokens(row, 1, kColumns[1]);
    request.output = whole_tokens(row, 2, kColumns[2]);
    requests.push_back(request);
  };
  read_csv_table(path, kColumns, add, kMostRequests);
  return requests;
}

}  // namespace moecast
