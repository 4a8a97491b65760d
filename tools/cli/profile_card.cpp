#include "tools/cli/profile_card.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "hwprofiles/kernel_samples.h"
#include "hwprofiles/profile.h"
#include "models/core/quantity_text.h"
#include "sim/cost/kernel/kernel_calibration.h"

namespace moecast {
namespace {

std::string value_text(const HardwareQuantity& quantity) {
  if (quantity.unit == "B/s") return format_bytes_per_second(BytesPerSecond(quantity.value));
  if (quantity.unit == "FLOP/s") return format_flops(Flops(quantity.value)) + "/s";
  if (quantity.unit == "B") return format_bytes(Bytes(quantity.value));
  if (quantity.unit == "s") return format_seconds(Seconds(quantity.value));
  if (quantity.unit == "1") return fmt::format("{:g}", quantity.value);
  return fmt::format("{:g} {}", quantity.value, quantity.unit);
}

std::string percent(const KernelModel& model, double ErrorSummary::* field) {
  return model.left_out ? format_percent((*model.left_out).*field) : "–";
}

/// Kinds of tables that the profile has nothing of.
std::vector<std::string> missing_layouts(const KernelCalibration& calibration) {
  std::set<std::string> present;
  for (const KernelModel& model : calibration.kernels) present.insert(model.key.layout);
  std::vector<std::string> missing;
  for (const KernelLayout& layout : kernel_layouts()) {
    if (present.count(std::string(layout.name)) == 0) missing.emplace_back(layout.name);
  }
  return missing;
}

std::string text_card(const Profile& profile, const KernelCalibration* calibration, Format format) {
  std::string text = fmt::format("{} ({})\n\n", profile.name, profile.device);
  Table values{{"value", "is", "origin", "source"}, {}};
  for (const auto& [name, quantity] : profile.quantities) {
    values.rows.push_back({name, value_text(quantity), std::string(to_string(quantity.origin)), quantity.source});
  }
  text += render_table(values, format);
  if (calibration != nullptr) {
    text += "\nkernels, with the error of rows whose whole shape was left out\n";
    Table table{{"kernel", "shapes", "curves", "rows", "median", "p90", "within 10 %", "in 90 %"}, {}};
    for (const KernelModel& model : calibration->kernels) {
      table.rows.push_back({model.key.text(), std::to_string(model.shapes),
                            std::to_string(model.arrays().features.rows()), std::to_string(model.rows),
                            percent(model, &ErrorSummary::median_ape), percent(model, &ErrorSummary::p90_ape),
                            percent(model, &ErrorSummary::within_10_ratio),
                            percent(model, &ErrorSummary::coverage_90_ratio)});
    }
    text += render_table(table, format);
    for (const auto& [reason, rows] : calibration->left_out) {
      text += fmt::format("not fitted: {} rows: {}\n", rows, reason);
    }
    text += fmt::format("missing: {}\n", fmt::join(missing_layouts(*calibration), ", "));
  } else {
    text += "\nno kernel tables were imported\n";
  }
  if (!profile.notes.empty()) text += "\nknown of this profile\n";
  for (const std::string& line : profile.notes) text += "  " + line + "\n";
  return text;
}

Json json_card(const Profile& profile, const KernelCalibration* calibration) {
  Json json{{"name", profile.name}, {"device", profile.device}};
  json["quantities"] = Json::object();
  for (const auto& [name, q] : profile.quantities) {
    json["quantities"][name] = {
        {"value", q.value}, {"unit", q.unit}, {"origin", to_string(q.origin)}, {"source", q.source}};
  }
  json["kernels"] = Json::array();
  if (calibration != nullptr) {
    for (const KernelModel& model : calibration->kernels) {
      const auto known = [&](double ErrorSummary::* field) {
        return model.left_out ? Json((*model.left_out).*field) : Json();
      };
      json["kernels"].push_back({{"framework", model.key.framework},
                                 {"version", model.key.version},
                                 {"operator", model.key.layout},
                                 {"kernel", model.key.kernel},
                                 {"dtype", model.key.dtype},
                                 {"shapes", model.shapes},
                                 {"curves", model.arrays().features.rows()},
                                 {"rows", model.rows},
                                 {"left_out_median_ape", known(&ErrorSummary::median_ape)},
                                 {"left_out_p90_ape", known(&ErrorSummary::p90_ape)},
                                 {"coverage_90_ratio", known(&ErrorSummary::coverage_90_ratio)}});
    }
    json["missing"] = missing_layouts(*calibration);
    json["left_out_rows"] = Json::object();
    for (const auto& [reason, rows] : calibration->left_out) json["left_out_rows"][reason] = rows;
  }
  json["notes"] = profile.notes;
  return json;
}

}  // namespace

std::string profile_card(const std::string& folder, Format format) {
  const Profile profile = read_profile(folder);
  std::error_code none;
  std::optional<KernelCalibration> calibration;
  if (std::filesystem::exists(folder + "/" + std::string(kKernelCalibrationFile), none)) {
    calibration = read_kernel_calibration(folder, profile.name);
  }
  const KernelCalibration* known = calibration ? &*calibration : nullptr;
  if (format == Format::table || format == Format::md) return text_card(profile, known, format);
  return render_records({json_card(profile, known)}, format, true);
}

}  // namespace moecast
