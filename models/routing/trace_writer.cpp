#include "models/routing/trace_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "models/core/error.h"

namespace moecast {
namespace {

constexpr double kMostLines = 5e6;

}  // namespace

std::string routing_trace_text(const TraceRecipe& recipe) {
  const bool fixed = recipe.policy.kind != RoutingPolicyKind::expert_choice && recipe.policy.top_k_distribution.empty();
  if (!fixed)
    throw InputError("trace", "needs a fixed number of experts a token", "token choice, hash or hierarchical");
  if (static_cast<double>(recipe.tokens) * recipe.layers * static_cast<double>(recipe.steps) > kMostLines) {
    throw InputError("trace", "of more than five million lines", "fewer tokens, layers or steps");
  }
  const int groups = std::max(1, recipe.policy.groups);
  const std::vector<double> popularity = ordered_popularity(recipe.popularity, groups);
  Router router(recipe.policy, popularity);
  ExpertOrders orders(router.experts(), groups, recipe.layers, recipe.orders, recipe.seed);
  Random random(recipe.seed + 1);
  Assignment assignment;
  std::string text = "layer,token";
  auto out = std::back_inserter(text);
  const int columns = recipe.policy.kind == RoutingPolicyKind::dense ? router.experts() : recipe.policy.top_k;
  for (int slot = 0; slot < columns; ++slot) fmt::format_to(out, ",expert_{}", slot);
  text += '\n';
  for (std::int64_t step = 0; step < recipe.steps; ++step) {
    orders.go_to(step);
    for (int layer = 0; layer < recipe.layers; ++layer) {
      const std::span<const std::int32_t> order = orders.at(layer);
      router.draw(recipe.tokens, random, assignment);
      for (std::int64_t token = 0; token < recipe.tokens; ++token) {
        fmt::format_to(out, "{},{}", layer, step * recipe.tokens + token);
        for (const std::int32_t place : assignment.of(static_cast<std::size_t>(token))) {
          fmt::format_to(out, ",{}", order[static_cast<std::size_t>(place)]);
        }
        text += '\n';
      }
    }
  }
  return text;
}

}  // namespace moecast
