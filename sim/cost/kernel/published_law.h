#pragma once
#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hwprofiles/published_exchange.h"

namespace moecast {

/// Which of three priors a published row starts from.
enum class PublishedKind { low_latency, normal, all_to_all };
std::string_view to_string(PublishedKind kind);

/// A published exchange as the reduced law sees it: bytes that a rank sends over its NIC and its NVLink.
struct PublishedPoint {
  PublishedKind kind = PublishedKind::normal;
  bool combine = false;
  bool efa = false;  ///< whose proxies slow down with nodes
  double nodes = 1;
  double ranks = 1;
  double nic_bytes = 0;
  double nvlink_bytes = 0;
  double nvlink = 0;  ///< usual rate of the link, B/s: the prior
  double seconds = 0;
};

/// Rows of low-latency kernels send a copy a selected expert, all others one a distinct rank and node, of experts that
/// are chosen evenly. A published bandwidth counts logical bytes, and becomes seconds that way.
/// @return nullopt where the row says too little.
std::optional<PublishedPoint> published_point(const PublishedExchange& row);

/// t = alpha + (nic^3 + nvlink^3)^(1/3) of one library, GPU and mode: three constants, and over EFA the growth of the
/// NIC's time with nodes. Known from few rows, so its priors carry weight.
class PublishedLaw {
 public:
  /// @param points  of one kind, at least one.
  static PublishedLaw fit(std::span<const PublishedPoint> points);
  [[nodiscard]] double seconds(const PublishedPoint& point) const;

  [[nodiscard]] double start_s() const;
  [[nodiscard]] double nic() const;     ///< B/s
  [[nodiscard]] double nvlink() const;  ///< B/s
  [[nodiscard]] double growth() const { return log_[3]; }

 private:
  std::array<double, 4> log_{};  ///< ln start, ln NIC, ln NVLink; exponent of nodes / 2
};

}  // namespace moecast
