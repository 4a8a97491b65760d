#pragma once
#include <span>
#include <string_view>
#include <utility>

#include "models/architecture/attention.h"
#include "models/architecture/moe.h"

namespace moecast {

/// Words of an enumeration in the own schema, e.g. {"relu-squared", Activation::relu_squared}.
template <class Enum>
using NameTable = std::span<const std::pair<std::string_view, Enum>>;

/// Every value of the enumeration once.
template <class Enum>
NameTable<Enum> enum_names();

template <>
NameTable<Activation> enum_names<Activation>();
template <>
NameTable<ExpertKind> enum_names<ExpertKind>();
template <>
NameTable<RouterKind> enum_names<RouterKind>();
template <>
NameTable<RouterNetwork> enum_names<RouterNetwork>();
template <>
NameTable<ScoreFunction> enum_names<ScoreFunction>();
template <>
NameTable<ScoreOrder> enum_names<ScoreOrder>();
template <>
NameTable<NoiseKind> enum_names<NoiseKind>();
template <>
NameTable<Granularity> enum_names<Granularity>();
template <>
NameTable<Overflow> enum_names<Overflow>();
template <>
NameTable<CapacityRounding> enum_names<CapacityRounding>();
template <>
NameTable<AttentionKind> enum_names<AttentionKind>();

/// Word of a value, "" for one that is not in the table.
template <class Enum>
std::string_view enum_name(Enum value) {
  for (const auto& [name, entry] : enum_names<Enum>()) {
    if (entry == value) return name;
  }
  return {};
}

}  // namespace moecast
