#include "models/architecture/reader.h"

#include <map>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "models/architecture/block_fields.h"
#include "models/architecture/checks.h"
#include "models/architecture/names.h"
#include "models/core/error.h"

namespace moecast {
namespace {

using schema::Tag;

/// One word of a fixed set. @throws InputError with the nearest.
template <class Value>
Value word(const JsonView& view, std::span<const std::pair<std::string_view, Value>> table) {
  const std::string text = view.as_string();
  std::vector<std::string_view> known;
  for (const auto& [name, value] : table) {
    if (name == text) return value;
    known.push_back(name);
  }
  std::string all;
  for (const std::string_view name : known) all += (all.empty() ? "" : ", ") + std::string(name);
  const auto near = nearest_name(text, known);
  throw InputError(view.where(), "\"" + text + "\" is not known here",
                   near ? "did you mean \"" + *near + "\"?" : "write one of: " + all);
}

/// Elements of an array. @throws InputError if it is none, or longer than any list of a model.
std::vector<JsonView> elements(const JsonView& view) {
  if (!view.is_array()) static_cast<void>(view.at(std::size_t{0}));  // throws: an array is expected
  if (view.size() > static_cast<std::size_t>(schema::kMaxCount)) throw InputError(view.where(), "is too long");
  std::vector<JsonView> all;
  for (std::size_t i = 0; i < view.size(); ++i) all.push_back(view.at(i));
  return all;
}

/// Fills the members of one structure from a JSON object; members that are absent keep their defaults.
template <class T>
class Reader {
 public:
  Reader(const JsonView& view, T& object) : view_(view), object_(object) {}

  template <class M, class Bound>
  void operator()(std::string_view name, M T::* member, Bound low, Bound high) {
    bounded(name, object_.*member, low, high);
  }
  /// Ranges whose ends are of two integer types.
  template <class M, class Low, class High>
  void operator()(std::string_view name, M T::* member, Low low, High high) {
    bounded(name, object_.*member, static_cast<std::int64_t>(low), static_cast<std::int64_t>(high));
  }
  template <class M>
  void operator()(std::string_view name, M T::* member) {
    if (const auto view = take(name)) plain(*view, object_.*member);
  }
  template <class M>
  void nested(std::string_view name, M T::* member) {
    const auto view = take(name);
    if (view) inside(*view, object_.*member);
  }
  template <class M>
  void list(std::string_view name, std::vector<M> T::* member) {
    const auto view = take(name);
    if (!view) return;
    for (const JsonView& element : elements(*view)) inside(element, (object_.*member).emplace_back());
  }
  /// @param extra  keys that the caller reads itself.
  void finish(std::vector<std::string_view> extra = {}) {
    known_.insert(known_.end(), extra.begin(), extra.end());
    view_.refuse_unknown_keys(known_);
  }

 private:
  std::optional<JsonView> take(std::string_view name) {
    known_.push_back(name);
    if (!view_.has(name)) return std::nullopt;
    return view_.at(name);
  }

  template <class M, class Bound>
  void bounded(std::string_view name, M& value, Bound low, Bound high) {
    const auto view = take(name);
    if (!view) return;
    if constexpr (std::is_same_v<M, std::vector<std::int64_t>>) {
      for (const JsonView& element : elements(*view)) value.push_back(element.as_int(low, high));
    } else if constexpr (std::is_same_v<M, std::vector<double>>) {
      for (const JsonView& element : elements(*view)) value.push_back(element.as_number(low, high));
    } else if constexpr (std::is_same_v<M, double> || std::is_same_v<M, std::optional<double>>) {
      value = view->as_number(low, high);
    } else if constexpr (std::is_same_v<M, int>) {
      value = static_cast<int>(view->as_int(low, high));
    } else {
      value = view->as_int(low, high);
    }
  }

  static void plain(const JsonView& view, bool& value) { value = view.as_bool(); }
  static void plain(const JsonView& view, std::string& value) { value = view.as_string(); }
  static void plain(const JsonView& view, std::vector<std::string>& value) {
    for (const JsonView& element : elements(view)) value.push_back(element.as_string());
  }
  static void plain(const JsonView& view, DType& value) {
    const auto dtype = parse_dtype(view.as_string());
    if (!dtype) throw InputError(view.where(), "\"" + view.as_string() + "\" is no number format", "e.g. bf16, fp8");
    value = *dtype;
  }
  static void plain(const JsonView& view, std::optional<DType>& value) { plain(view, value.emplace()); }
  template <class Enum>
    requires std::is_enum_v<Enum>
  static void plain(const JsonView& view, Enum& value) {
    value = word<Enum>(view, enum_names<Enum>());
  }

  template <class M>
  static void inside(const JsonView& view, std::optional<M>& value) {
    inside(view, value.emplace());
  }
  template <class M>
  static void inside(const JsonView& view, M& value) {
    Reader<M> reader(view, value);
    describe(reader, Tag<M>());
    reader.finish();
  }

  JsonView view_;
  T& object_;
  std::vector<std::string_view> known_;
};

using NamedBlocks = std::map<std::string, Block>;

template <class B>
Block block_of(const JsonView& view) {
  B block;
  Reader<B> reader(view, block);
  describe(reader, Tag<B>());
  reader.finish({"type"});
  return block;
}

/// Equal neighbours in a list of experts are one group of so many: the same layer, however it is written.
void join_equal_neighbours(std::vector<ExpertGroup>& groups) {
  std::vector<ExpertGroup> joined;
  for (ExpertGroup& group : groups) {
    if (!joined.empty() && joined.back().expert == group.expert && joined.back().modality == group.modality) {
      joined.back().count += group.count;
    } else {
      joined.push_back(std::move(group));
    }
  }
  groups = std::move(joined);
}

Block read_block(const JsonView& view, std::int64_t hidden) {
  constexpr std::array<Block (*)(const JsonView&), std::variant_size_v<Block>> kReaders{
      block_of<AttentionBlock>, block_of<MoeBlock>,         block_of<DenseFfnBlock>, block_of<StateSpaceBlock>,
      block_of<RecurrentBlock>, block_of<ConvolutionBlock>, block_of<OwnCostBlock>};
  std::array<std::pair<std::string_view, std::size_t>, kReaders.size()> types;
  for (std::size_t i = 0; i < types.size(); ++i) types[i] = {schema::kBlockTypes[i], i};
  const std::size_t type = word<std::size_t>(view.at("type"), types);
  Block block = kReaders[type](view);
  check_block(block, hidden, view.where());
  if (auto* moe = std::get_if<MoeBlock>(&block)) join_equal_neighbours(moe->experts);
  return block;
}

Block block_or_name(const JsonView& view, std::int64_t hidden, const NamedBlocks& named) {
  if (!view.is_string()) return read_block(view, hidden);
  const auto found = named.find(view.as_string());
  if (found != named.end()) return found->second;
  std::vector<std::string_view> known;
  for (const auto& [name, block] : named) known.push_back(name);
  const auto near = nearest_name(view.as_string(), known);
  throw InputError(view.where(), "\"" + view.as_string() + "\" is not in /blocks",
                   near ? "did you mean \"" + *near + "\"?" : std::string());
}

std::vector<Layer> read_runs(const JsonView& view, std::int64_t hidden, const NamedBlocks& named, int depth) {
  std::vector<Layer> layers;
  for (const JsonView& run : elements(view)) {
    run.refuse_unknown_keys({"repeat", "blocks", "layers"});
    const std::int64_t repeat = run.find_int("repeat", 1, static_cast<std::int64_t>(schema::kMaxLayers)).value_or(1);
    std::vector<Layer> once;
    if (run.has("layers")) {
      if (depth > 2) throw InputError(run.where(), "runs are nested too deeply");
      if (run.has("blocks")) throw InputError(run.where(), "has both \"blocks\" and \"layers\"");
      once = read_runs(run.at("layers"), hidden, named, depth + 1);
    } else {
      const std::vector<JsonView> blocks = elements(run.at("blocks"));
      if (blocks.size() > 64) throw InputError(run.where(), "one layer has more than 64 blocks");
      Layer layer;
      for (const JsonView& block : blocks) layer.blocks.push_back(block_or_name(block, hidden, named));
      once.push_back(std::move(layer));
    }
    if (layers.size() + once.size() * static_cast<std::size_t>(repeat) > schema::kMaxLayers) {
      throw InputError(run.where(), "makes more than " + std::to_string(schema::kMaxLayers) + " layers");
    }
    for (std::int64_t r = 0; r < repeat; ++r) layers.insert(layers.end(), once.begin(), once.end());
  }
  return layers;
}

}  // namespace

bool looks_like_own_schema(const JsonView& json) { return json.is_object() && json.has(schema::kFormatKey); }

Architecture read_architecture(const JsonView& json) {
  static_cast<void>(json.at(schema::kFormatKey).as_int(schema::kFormatVersion, schema::kFormatVersion));
  Architecture architecture;
  Reader<Architecture> reader(json, architecture);
  describe(reader, Tag<Architecture>());
  reader.finish({schema::kFormatKey, "blocks", "encoder", "decoder", "multi_token_prediction"});
  if (architecture.hidden < 1) throw InputError(json.where(), "\"hidden\" is missing");
  NamedBlocks named;
  if (json.has("blocks")) {
    const JsonView blocks = json.at("blocks");
    for (const std::string& name : blocks.keys()) named[name] = read_block(blocks.at(name), architecture.hidden);
  }
  for (const auto& [name, stack] :
       {std::pair{"encoder", &architecture.encoder}, std::pair{"decoder", &architecture.decoder},
        std::pair{"multi_token_prediction", &architecture.multi_token_prediction}}) {
    if (json.has(name)) *stack = read_runs(json.at(name), architecture.hidden, named, 0);
  }
  check_architecture(architecture, json.where());
  return architecture;
}

}  // namespace moecast
