#include "sim/analytic/memo_cost_model.h"

#include <type_traits>

namespace moecast {
namespace {

static_assert(std::is_trivially_copyable_v<OperatorShape>);

template <class T>
void append(const T& value, std::string& key) {
  key.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

}  // namespace

KernelCost MemoCostModel::cost(const KernelPoint& point, double rows) const {
  std::string key;
  key.reserve(256);
  append(point.kind, key);
  append(point.dtype, key);
  append(point.threads, key);
  append(point.shape, key);
  append(point.footprint.value(), key);
  append(point.input_footprint.value(), key);
  append(point.output_footprint.value(), key);
  append(rows, key);
  key += point.backend;
  const auto [entry, fresh] = known_.try_emplace(std::move(key));
  if (fresh) {
    try {
      entry->second = model_->cost(point, rows);
    } catch (...) {
      known_.erase(entry);
      throw;
    }
  }
  return entry->second;
}

}  // namespace moecast
