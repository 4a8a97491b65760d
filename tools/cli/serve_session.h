#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"
#include "sim/step/served_model.h"
#include "sim/step/service_simulation.h"
#include "tools/cli/data_folders.h"
#include "tools/cli/serve_options.h"
#include "tools/cli/serve_report.h"

namespace moecast {

/// One load of the command line.
struct Asked {
  std::optional<double> rate;
  std::optional<std::int64_t> clients;
};

/// The deployment of the command line, and its loads.
class ServeSession {
 public:
  /// @throws UsageError on wrong or contradicting flags, InputError on a bad file.
  explicit ServeSession(const ServeOptions& options);

  [[nodiscard]] const std::vector<Asked>& asked() const { return asked_; }
  [[nodiscard]] const Architecture& architecture() const { return architecture_; }
  /// @param progress  called with the share of the answer's simulations that is done.
  /// @return nullopt when interrupted.
  [[nodiscard]] std::optional<ServiceAnswer> answer(const Asked& asked,
                                                    const std::function<void(double)>& progress) const;

 private:
  void read_load();
  void read_deployment();
  void read_split(int gpus);
  void read_goals();
  void finish_setup();
  [[nodiscard]] std::size_t usual_requests(const Asked& asked) const;
  [[nodiscard]] std::vector<ServiceRequest> requests_of(const Asked& asked, std::size_t count) const;
  [[nodiscard]] std::vector<ServiceRequest> equal_requests(const Asked& asked, std::size_t count) const;
  [[nodiscard]] std::vector<ServiceRequest> client_requests(std::int64_t clients, std::size_t count) const;
  [[nodiscard]] double front_of(const std::vector<ServiceRequest>& requests, IntervalEnd end) const;
  [[nodiscard]] std::size_t enough_requests(const Asked& asked, const ServiceStudy& study, std::size_t count) const;
  [[nodiscard]] std::size_t warmup_of(std::size_t requests) const;
  [[nodiscard]] std::vector<InputValue> inputs_of(const Asked& asked,
                                                  const std::vector<ServiceRequest>& requests) const;

  ServeOptions options_;
  DataFolders folders_;
  std::vector<Asked> asked_;
  std::vector<ServiceRequest> recorded_;
  std::uint64_t seed_ = 1;
  double urgent_ = 0, range_ratio_ = 0;
  std::int64_t prompt_ = 0, output_ = 0;
  std::optional<std::int64_t> requests_, warmup_;
  Architecture architecture_;
  Deployment deployment_;
  ServedModel served_;
  ServiceSetup setup_;
  int gpus_ = 1;
  std::optional<double> price_, front_s_;
  std::string hw_folder_;
};

}  // namespace moecast
