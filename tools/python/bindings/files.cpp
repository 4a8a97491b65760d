#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "models/architecture/zoo.h"
#include "tools/python/bindings/bindings.h"
#include "tools/python/bindings/questions.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace moecast::python {

void bind_files(nb::module_& m) {
  m.def("set_data_folder", &set_data_folder, "folder"_a,
        "Where profiles, models and engines lie; empty = the source tree.");
  m.def(
      "list_hw",
      [] {
        std::vector<std::string> names;
        for (const ProfileEntry& entry : find_profiles(find_data_folders(data_folder()))) names.push_back(entry.name);
        return names;
      },
      "Names of the known machines, those measured here first.");
  m.def(
      "list_models", [] { return zoo_names(find_data_folders(data_folder()).zoo); }, "Names of the models of the zoo.");
  m.def(
      "profile_folder", [](const std::string& name) { return profile_folder(find_data_folders(data_folder()), name); },
      "name"_a, "Folder of a known machine's profile.");
}

}  // namespace moecast::python
