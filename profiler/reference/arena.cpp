#include "profiler/reference/arena.h"

#include <sys/mman.h>

#include <cstdint>
#include <string>

#include "models/core/error.h"

namespace moecast {
namespace {
constexpr std::size_t kArenaPage = std::size_t{2} << 20;
}

Arena::~Arena() { unmap(); }

void Arena::unmap() {
  if (mapping_ != nullptr) munmap(mapping_, mapped_);
  mapping_ = nullptr;
  memory_ = nullptr;
  size_ = 0;
}

std::byte* Arena::claim(Tenant& tenant, std::size_t bytes) {
  if (tenant_ != nullptr && tenant_ != &tenant) {
    tenant_->evicted();
    tenant_ = nullptr;
  }
  if (bytes > size_) {
    unmap();
    const std::size_t size = (bytes + kArenaPage - 1) / kArenaPage * kArenaPage;
    mapped_ = size + kArenaPage;
    mapping_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping_ == MAP_FAILED) {
      mapping_ = nullptr;
      tenant_ = nullptr;
      throw DeviceError("memory", "cannot reserve " + std::to_string(bytes) + " bytes for weights and activations",
                        "run a smaller model or fewer copies");
    }
    const auto address = reinterpret_cast<std::uintptr_t>(mapping_);
    const std::uintptr_t aligned = (address + kArenaPage - 1) / kArenaPage * kArenaPage;
    memory_ = static_cast<std::byte*>(mapping_) + (aligned - address);
    size_ = size;
    madvise(memory_, size_, MADV_HUGEPAGE);  // a machine without huge pages only runs a little slower
  }
  tenant_ = &tenant;
  return memory_;
}

void Arena::leave(const Tenant& tenant) {
  if (tenant_ == &tenant) tenant_ = nullptr;
}

}  // namespace moecast
