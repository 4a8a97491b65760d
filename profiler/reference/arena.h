#pragma once
#include <cstddef>

namespace moecast {

/// Memory in huge pages that several executables use in turns: of many layers that are timed in shuffled rounds, one at
/// a time holds its weights.
class Arena {
 public:
  /// Who lives in an arena. `evicted` is called when another one moves in.
  class Tenant {
   public:
    Tenant() = default;
    Tenant(const Tenant&) = delete;
    Tenant& operator=(const Tenant&) = delete;
    virtual ~Tenant() = default;
    virtual void evicted() = 0;
  };

  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();

  /// At least `bytes`, aligned to 2 MiB. The content is what this tenant left there if it is still `tenant`.
  /// @throws DeviceError when the machine has not so much memory.
  std::byte* claim(Tenant& tenant, std::size_t bytes);
  [[nodiscard]] bool holds(const Tenant& tenant) const { return tenant_ == &tenant; }
  void leave(const Tenant& tenant);
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  void unmap();
  Tenant* tenant_ = nullptr;
  std::byte* memory_ = nullptr;  // aligned start
  void* mapping_ = nullptr;
  std::size_t mapped_ = 0;
  std::size_t size_ = 0;
};

}  // namespace moecast
