#include "tools/cli/profile_card.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "hwprofiles/backend_rules.h"
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

std::string rules_text(const std::vector<BackendRules>& backends, Format format) {
  if (backends.empty()) return "\nwhich kernel a framework picks: no rule; the nearest measured one answers\n";
  Table table{{"framework", "operator", "formats", "rows", "kernel", "known", "agree", "evidence"}, {}};
  for (const BackendRules& backend : backends) {
    for (const KernelRule& rule : backend.rules) {
      table.rows.push_back(
          {backend.framework, rule.layout, fmt::format("{}", fmt::join(rule.formats, ", ")), rule.when_text(),
           (rule.kernels.size() > 1 ? "fastest of " : "") + fmt::format("{}", fmt::join(rule.kernels, ", ")),
           std::string(to_string(rule.origin)), rule.rows > 0 ? fmt::format("{} of {}", rule.agree, rule.rows) : "–",
           rule.source});
    }
  }
  std::string text = "\nwhich kernel a framework picks (the first rule that holds), and measured rows that agree\n" +
                     render_table(table, format);
  for (const BackendRules& backend : backends) {
    for (const TunedTiles& tuned : backend.tuned) {
      std::vector<std::string> pairs;
      for (const auto& [experts, width] : tuned.pairs) pairs.push_back(fmt::format("{} x {}", experts, width));
      text += fmt::format("tuned tiles of {} {}, experts x width of a rank, default tiles for all others: {} ({})\n",
                          tuned.kernel, fmt::join(tuned.formats, ", "), fmt::join(pairs, ", "), tuned.source);
    }
  }
  return text;
}

Json tuned_json(const std::vector<BackendRules>& backends) {
  Json json = Json::array();
  for (const BackendRules& backend : backends) {
    for (const TunedTiles& tuned : backend.tuned) json.push_back(tuned_tiles_json(tuned));
  }
  return json;
}

Json rules_json(const std::vector<BackendRules>& backends) {
  Json json = Json::array();
  for (const BackendRules& backend : backends) {
    for (const KernelRule& rule : backend.rules) {
      json.push_back({{"framework", backend.framework},
                      {"operator", rule.layout},
                      {"formats", rule.formats},
                      {"when", rule.when_text()},
                      {"kernels", rule.kernels},
                      {"origin", to_string(rule.origin)},
                      {"rows", rule.rows},
                      {"agree", rule.agree},
                      {"source", rule.source}});
    }
  }
  return json;
}

/// A coefficient as its meaning says it: its exponential, but for exponents, which are no logarithms.
std::string coefficient_text(const KernelLaw::Coefficient& known, double value) {
  if (known.meaning.ends_with("no logarithm")) return fmt::format("{:.3g}", value);
  return known.meaning.starts_with("seconds") ? format_seconds(Seconds(std::exp(value)))
                                              : fmt::format("{:.3g}", std::exp(value));
}

/// Laws by what their coefficients mean, each with the range that the kernels of the profile span.
std::string coefficients_text(const KernelCalibration& calibration, Format format) {
  struct Range {
    KernelLaw::Coefficient known;
    double low, high;
    int kernels;
  };
  std::vector<std::pair<std::string, Range>> ranges;  // in the order of the laws
  for (const KernelModel& model : calibration.kernels) {
    const std::span<const KernelLaw::Coefficient> known = model.law->coefficients();
    for (std::size_t i = 0; i < known.size(); ++i) {
      const double value = model.coefficients(static_cast<Eigen::Index>(i));
      const auto found = std::ranges::find_if(ranges, [&](const auto& range) {
        return range.first == model.key.layout && range.second.known.name == known[i].name;
      });
      if (found == ranges.end()) {
        ranges.push_back({model.key.layout, {known[i], value, value, 1}});
      } else {
        found->second.low = std::min(found->second.low, value);
        found->second.high = std::max(found->second.high, value);
        ++found->second.kernels;
      }
    }
  }
  Table table{{"operator", "coefficient", "meaning", "prior", "least", "most", "kernels"}, {}};
  for (const auto& [layout, range] : ranges) {
    table.rows.push_back({layout, std::string(range.known.name), std::string(range.known.meaning),
                          coefficient_text(range.known, range.known.prior), coefficient_text(range.known, range.low),
                          coefficient_text(range.known, range.high), std::to_string(range.kernels)});
  }
  return "\ncoefficients of the laws, from the kernel with the least to the one with the most (each in --format "
         "json)\n" +
         render_table(table, format);
}

Json coefficients_json(const KernelModel& model) {
  Json json = Json::object();
  const std::span<const KernelLaw::Coefficient> known = model.law->coefficients();
  for (std::size_t i = 0; i < known.size(); ++i) {
    json[std::string(known[i].name)] = {{"ln_value", model.coefficients(static_cast<Eigen::Index>(i))},
                                        {"ln_prior", known[i].prior},
                                        {"ln_width", known[i].width},
                                        {"meaning", known[i].meaning}};
  }
  return json;
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
    text += rules_text(calibration->backends, format);
    text += coefficients_text(*calibration, format);
  } else {
    text += "\nno kernel tables were imported\n";
  }
  if (!profile.notes.empty()) text += std::string("\n") + "known of this profile\n";
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
                                 {"coverage_90_ratio", known(&ErrorSummary::coverage_90_ratio)},
                                 {"coefficients", coefficients_json(model)}});
    }
    json["kernel_rules"] = rules_json(calibration->backends);
    json["tuned_tiles"] = tuned_json(calibration->backends);
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
