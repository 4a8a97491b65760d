#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "models/architecture/accounting.h"
#include "models/architecture/reader.h"
#include "models/architecture/split.h"
#include "models/core/error.h"
#include "models/core/json.h"
#include "tools/cli/model_choice.h"
#include "tools/cli/query_numbers.h"
#include "tools/python/bindings/bindings.h"
#include "tools/python/bindings/questions.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace moecast::python {
namespace {

constexpr std::int64_t kMostExperts = 65536;

/// The limits are those of the command line.
Architecture layer(nb::handle hidden, nb::handle width, nb::handle experts, nb::handle top_k, bool gated,
                   std::optional<double> capacity_factor, bool pad, nb::handle shared_experts,
                   const std::string& activation, const std::string& overflow) {
  if (capacity_factor && !(*capacity_factor >= 1e-6 && *capacity_factor <= 1e6)) {
    throw UsageError("capacity_factor", std::to_string(*capacity_factor) + " is out of range",
                     "expected 1e-6 to 1e6, or None for no limit");
  }
  LayerChoice choice;
  choice.hidden = whole("hidden", hidden, 1, kMaxSize);
  choice.width = whole("width", width, 1, kMaxSize);
  choice.experts = whole("experts", experts, 1, kMostExperts);
  choice.top_k = whole("top_k", top_k, 1, kMostExperts);
  choice.gated = gated;
  choice.capacity_factor = capacity_factor;
  choice.pad = pad;
  choice.shared_experts = whole("shared_experts", shared_experts, 0, 4096);
  choice.activation = activation;
  choice.overflow = overflow;
  return make_layer(choice);
}

nb::module_ json_module() { return nb::module_::import_("json"); }

/// NumPy's numbers as Python's.
nb::object plain(const nb::object& value) {
  if (nb::hasattr(value, "item")) return value.attr("item")();
  throw nb::type_error(("a " + nb::cast<std::string>(value.type().attr("__name__")) + " is no value of JSON").c_str());
}

Architecture from_dict(const nb::dict& description, const std::string& where) {
  std::string text;
  try {
    text = nb::cast<std::string>(json_module().attr("dumps")(description, "default"_a = nb::cpp_function(&plain)));
  } catch (const nb::python_error& error) {
    const bool its_fault = error.matches(PyExc_TypeError) || error.matches(PyExc_ValueError) ||
                           error.matches(PyExc_RecursionError) || error.matches(PyExc_OverflowError);
    if (!its_fault) throw;
    throw InputError(where, nb::cast<std::string>(nb::str(error.value())),
                     "write dicts, lists, text, numbers, True, False and None");
  }
  return load_architecture_text(text, where, where);
}

/// Equal for equal architectures; cheap, so others may share it.
std::size_t hash_of(const Architecture& a) {
  std::size_t hash = std::hash<std::string>()(a.name);
  const double parameters = count_parameters(a).total;
  for (const std::size_t part : {static_cast<std::size_t>(a.hidden), static_cast<std::size_t>(a.vocabulary),
                                 a.encoder.size(), a.decoder.size(), std::hash<double>()(parameters)}) {
    hash = hash * 1000003 + part;
  }
  return hash;
}

}  // namespace

void bind_architecture(nb::module_& m) {
  nb::class_<Architecture>(m, "Architecture",
                           "A model: layers of blocks. Immutable. Made by load, from_text or moe_layer.")
      .def_static(
          "load", [](const std::string& name) { return load_model(name, find_data_folders(data_folder())); }, "name"_a,
          "A name of the zoo, a Hugging Face config.json or a file of the own schema. Raises UsageError on an unknown "
          "name (the nearest is suggested), InputError on a bad file.")
      .def_static("from_dict", &from_dict, "description"_a, "where"_a = "architecture",
                  "The own schema or a Hugging Face configuration as a dict. Raises InputError.")
      .def_static(
          "from_text",
          [](const std::string& text, const std::string& where) { return load_architecture_text(text, where, where); },
          "text"_a, "where"_a = "architecture",
          "JSON text: the own schema or a Hugging Face configuration. `where` names it in errors.")
      .def_static("moe_layer", &layer, "hidden"_a.none(), "width"_a.none(), "experts"_a.none(), "top_k"_a.none(),
                  nb::kw_only(), "gated"_a = true, "capacity_factor"_a.none() = nb::none(), "pad"_a = false,
                  "shared_experts"_a.none() = 0, "activation"_a = "", "overflow"_a = "",
                  nb::sig("def moe_layer(hidden: int, width: int, experts: int, top_k: int, *, gated: bool = True, "
                          "capacity_factor: float | None = None, pad: bool = False, shared_experts: int = 0, "
                          "activation: str = '', overflow: str = '') -> Architecture"),
                  "A lone MoE layer: `experts` feed-forward networks of intermediate width `width`, of which a token "
                  "uses `top_k`.")
      .def_ro("name", &Architecture::name)
      .def_ro("hidden", &Architecture::hidden, "Width of a token.")
      .def_ro("vocabulary", &Architecture::vocabulary)
      .def_ro("notes", &Architecture::notes, "What the importer ignored or assumed.")
      .def_prop_ro("layers", [](const Architecture& a) { return a.encoder.size() + a.decoder.size(); })
      .def_prop_ro("is_lone_block", &is_lone_block, "One block without embeddings: tokens pass it, no sequences.")
      .def_prop_ro("dtype", [](const Architecture& a) { return std::string(to_string(a.dtype)); })
      .def_prop_ro("total_parameters", [](const Architecture& a) { return count_parameters(a).total; })
      .def_prop_ro(
          "active_parameters", [](const Architecture& a) { return count_parameters(a).active; },
          "Parameters that one token uses.")
      .def(
          "flops",
          [](const Architecture& a, double sequences, double new_tokens, double context) {
            return step_flops(a, sequences, new_tokens, context).value();
          },
          "sequences"_a = 1, "new_tokens"_a = 1, "context"_a = 0,
          "Useful FLOPs of a forward pass of `new_tokens` tokens of each sequence after `context` earlier ones.")
      .def(
          "split_experts",
          [](const Architecture& a, nb::handle parts) {
            return split_experts(a, static_cast<int>(whole("parts", parts, 1, kMostExperts)));
          },
          "parts"_a, nb::sig("def split_experts(self, parts: int) -> Architecture"),
          "Finer experts (DeepSeekMoE): each of them as `parts` of a part of its width, of which a token uses as many "
          "more. Parameters and FLOPs but the router's stay. Raises InputError where widths do not divide.")
      .def(
          "to_dict",
          [](const Architecture& a) { return json_module().attr("loads")(dump_json(write_architecture(a))); },
          "The own schema as a dict; from_dict reads it back.")
      .def(
          "to_text", [](const Architecture& a) { return dump_json(write_architecture(a)); }, "JSON of the own schema.")
      .def("__reduce__",
           [](nb::handle self) {
             return nb::make_tuple(nb::module_::import_("moecast.predictor").attr("architecture_of"),
                                   nb::make_tuple(self.attr("to_text")(), self.attr("name")));
           })
      .def(
          "__eq__", [](const Architecture& a, const Architecture& b) { return a == b; }, nb::is_operator(),
          nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__hash__", &hash_of)
      .def("__repr__", [](const Architecture& a) {
        return "<moecast.Architecture " + a.name + ": hidden " + std::to_string(a.hidden) + ", " +
               std::to_string(a.encoder.size() + a.decoder.size()) + " layers>";
      });
}

}  // namespace moecast::python
