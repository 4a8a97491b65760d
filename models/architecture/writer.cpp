#include <map>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "models/architecture/block_fields.h"
#include "models/architecture/names.h"
#include "models/architecture/reader.h"

namespace moecast {
namespace {

using schema::Tag;

/// Writes the members of one structure that differ from their defaults.
template <class T>
class Writer {
 public:
  Writer(const T& object, const T& fallback, Json& out) : object_(object), fallback_(fallback), out_(out) {}

  template <class M, class Low, class High>
  void operator()(std::string_view name, M T::* member, Low, High) {
    (*this)(name, member);
  }
  template <class M>
  void operator()(std::string_view name, M T::* member) {
    if (object_.*member == fallback_.*member) return;
    out_[std::string(name)] = value(object_.*member);
  }
  template <class M>
  void nested(std::string_view name, M T::* member) {
    if (object_.*member == fallback_.*member) return;
    out_[std::string(name)] = structure(object_.*member);
  }
  template <class M>
  void list(std::string_view name, std::vector<M> T::* member) {
    Json array = Json::array();
    for (const M& element : object_.*member) array.push_back(structure(element));
    out_[std::string(name)] = std::move(array);
  }

 private:
  template <class M>
  static Json value(const M& member) {
    if constexpr (std::is_same_v<M, DType>) {
      return std::string(to_string(member));
    } else if constexpr (std::is_enum_v<M>) {
      return std::string(enum_name(member));
    } else {
      return member;
    }
  }
  template <class M>
  static Json value(const std::optional<M>& member) {
    return member ? value(*member) : Json();
  }
  template <class M>
  static Json structure(const std::optional<M>& member) {
    return member ? structure(*member) : Json();
  }
  template <class M>
  static Json structure(const M& member) {
    Json out = Json::object();
    const M fallback{};
    Writer<M> writer(member, fallback, out);
    describe(writer, Tag<M>());
    return out;
  }

  const T& object_;
  const T& fallback_;
  Json& out_;
};

Json block_json(const Block& block) {
  Json out = Json::object();
  out["type"] = std::string(schema::kBlockTypes[block.index()]);
  std::visit(
      [&]<class B>(const B& b) {
        const B fallback{};
        Writer<B> writer(b, fallback, out);
        describe(writer, Tag<B>());
      },
      block);
  return out;
}

/// Equal blocks get one name: their type, with a number from the second on.
class BlockNames {
 public:
  std::string name(const Block& block) {
    Json json = block_json(block);
    const std::string key = json.dump();
    const auto known = names_.find(key);
    if (known != names_.end()) return known->second;
    const std::string type(schema::kBlockTypes[block.index()]);
    const int number = ++used_[type];
    std::string made = number == 1 ? type : type + "-" + std::to_string(number);
    blocks_[made] = std::move(json);
    return names_[key] = made;
  }
  [[nodiscard]] const Json& blocks() const { return blocks_; }

 private:
  std::map<std::string, std::string> names_;
  std::map<std::string, int> used_;
  Json blocks_ = Json::object();
};

/// How often the `period` elements from `start` stand one after the other.
std::size_t repeats(const std::vector<Json>& runs, std::size_t start, std::size_t period) {
  std::size_t count = 1;
  while (start + (count + 1) * period <= runs.size()) {
    for (std::size_t i = 0; i < period; ++i) {
      if (runs[start + i] != runs[start + count * period + i]) return count;
    }
    ++count;
  }
  return count;
}

Json run_of(Json content, std::size_t count, const char* key) {
  Json run = Json::object();
  if (count > 1) run["repeat"] = count;
  run[key] = std::move(content);
  return run;
}

/// Runs of equal layers first, then runs of a repeating pattern of them.
Json write_runs(const std::vector<Layer>& layers, BlockNames& names) {
  std::vector<Json> single;
  for (const Layer& layer : layers) {
    Json blocks = Json::array();
    for (const Block& block : layer.blocks) blocks.push_back(names.name(block));
    single.push_back(std::move(blocks));
  }
  std::vector<Json> runs;
  for (std::size_t i = 0; i < single.size();) {
    const std::size_t count = repeats(single, i, 1);
    runs.push_back(run_of(single[i], count, "blocks"));
    i += count;
  }
  Json out = Json::array();
  for (std::size_t i = 0; i < runs.size();) {
    std::size_t best = 1;
    std::size_t count = 1;
    for (std::size_t period = 2; period <= 16 && i + 2 * period <= runs.size(); ++period) {
      const std::size_t found = repeats(runs, i, period);
      if (found > 1 && found * period > best * count) {
        best = period;
        count = found;
      }
    }
    if (count == 1) {
      out.push_back(runs[i++]);
      continue;
    }
    const auto first = runs.begin() + static_cast<std::ptrdiff_t>(i);
    out.push_back(run_of(Json(std::vector<Json>(first, first + static_cast<std::ptrdiff_t>(best))), count, "layers"));
    i += best * count;
  }
  return out;
}

}  // namespace

Json write_architecture(const Architecture& architecture) {
  Json out = Json::object();
  out[std::string(schema::kFormatKey)] = schema::kFormatVersion;
  const Architecture fallback{};
  Writer<Architecture> writer(architecture, fallback, out);
  describe(writer, Tag<Architecture>());
  BlockNames names;
  Json stacks = Json::object();
  for (const auto& [name, stack] :
       {std::pair{"encoder", &architecture.encoder}, std::pair{"decoder", &architecture.decoder},
        std::pair{"multi_token_prediction", &architecture.multi_token_prediction}}) {
    if (!stack->empty()) stacks[name] = write_runs(*stack, names);
  }
  out["blocks"] = names.blocks();
  for (const auto& [name, stack] : stacks.items()) out[name] = stack;
  return out;
}

}  // namespace moecast
