#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "sim/step/service_instance.h"

namespace moecast {

/// Requests that come independently of each other, so many a second on average, all alike. Equal for equal seeds.
/// @param rate_per_s  positive. @throws UsageError unless it is and count, prompt and output are at least 1.
std::vector<ServiceRequest> poisson_requests(double rate_per_s, std::size_t count, std::int64_t prompt,
                                             std::int64_t output, std::uint64_t seed);

/// Requests that all wait at the beginning.
std::vector<ServiceRequest> waiting_requests(std::size_t count, std::int64_t prompt, std::int64_t output);

/// Lengths of prompts and outputs, each drawn evenly between 1 - ratio and 1 + ratio of what it is; at least one token.
/// Equal for equal seeds. @param ratio  0 to 1. @throws UsageError otherwise.
void draw_lengths(std::vector<ServiceRequest>& requests, double ratio, std::uint64_t seed);

/// Gives requests that are drawn one by one, so many of all on average, priority 1. Equal for equal seeds.
/// @param share  0 to 1. @throws UsageError otherwise.
void draw_urgent(std::vector<ServiceRequest>& requests, double share, std::uint64_t seed);

/// A recorded load: CSV (gzip or not) with the columns arrival_s, prompt_tokens, output_tokens; others are passed over.
/// @throws InputError naming the line: no number, negative or not finite, no whole tokens, arrivals out of order.
std::vector<ServiceRequest> read_requests(const std::string& path);

}  // namespace moecast
