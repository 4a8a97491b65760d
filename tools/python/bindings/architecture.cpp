#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <nlohmann/json.hpp>

#include "models/architecture/accounting.h"
#include "models/architecture/reader.h"
#include "models/core/json.h"
#include "tools/cli/model_choice.h"
#include "tools/python/bindings/bindings.h"
#include "tools/python/bindings/questions.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace moecast::python {
namespace {

Architecture layer(std::int64_t hidden, std::int64_t width, std::int64_t experts, std::int64_t top_k, bool gated,
                   std::optional<double> capacity_factor, bool pad, std::int64_t shared_experts,
                   const std::string& activation, const std::string& overflow) {
  LayerChoice choice;
  choice.hidden = hidden;
  choice.width = width;
  choice.experts = experts;
  choice.top_k = top_k;
  choice.gated = gated;
  choice.capacity_factor = capacity_factor;
  choice.pad = pad;
  choice.shared_experts = shared_experts;
  choice.activation = activation;
  choice.overflow = overflow;
  return make_layer(choice);
}

nb::module_ json_module() { return nb::module_::import_("json"); }

Architecture from_dict(const nb::dict& description, const std::string& where) {
  const auto text = nb::cast<std::string>(json_module().attr("dumps")(description));
  return load_architecture_text(text, where, where);
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
      .def_static("moe_layer", &layer, "hidden"_a, "width"_a, "experts"_a, "top_k"_a, nb::kw_only(), "gated"_a = true,
                  "capacity_factor"_a.none() = nb::none(), "pad"_a = false, "shared_experts"_a = 0, "activation"_a = "",
                  "overflow"_a = "",
                  "A lone MoE layer: `experts` feed-forward networks of intermediate width `width`, of which a token "
                  "uses `top_k`.")
      .def_ro("name", &Architecture::name)
      .def_ro("hidden", &Architecture::hidden, "Width of a token.")
      .def_ro("vocabulary", &Architecture::vocabulary)
      .def_ro("notes", &Architecture::notes, "What the importer ignored or assumed.")
      .def_prop_ro("layers", [](const Architecture& a) { return a.encoder.size() + a.decoder.size(); })
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
      .def("__eq__", [](const Architecture& a, const Architecture& b) { return a == b; })
      .def("__repr__", [](const Architecture& a) {
        return "<moecast.Architecture " + a.name + ": hidden " + std::to_string(a.hidden) + ", " +
               std::to_string(a.encoder.size() + a.decoder.size()) + " layers>";
      });
}

}  // namespace moecast::python
