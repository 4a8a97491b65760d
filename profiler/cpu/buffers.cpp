#include "profiler/cpu/buffers.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "models/core/error.h"
#include "profiler/environment.h"

namespace moecast {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kPage = 4096;
/// Rings up to so many cache reaches are read whole before they are timed; beyond, nothing stays in a cache anyway.
constexpr double kWholeReaches = 2;
/// More than what a last-level cache may hold of other jobs' results.
constexpr double kBehindReaches = 2.0 / 3;

std::size_t round_up(std::size_t bytes, std::size_t multiple) { return (bytes + multiple - 1) / multiple * multiple; }

/// One pattern that is a number of magnitude 2^-7 to 2^-6 as fp32 and as both of its bf16 halves.
void fill(std::byte* data, std::size_t bytes) {
  auto* words = reinterpret_cast<std::uint32_t*>(data);
  std::uint32_t state = 12345;
  for (std::size_t i = 0; i < bytes / sizeof(std::uint32_t); ++i) {
    state = state * 1664525U + 1013904223U;
    const std::uint32_t high = 0x3C00U | (state >> 25) | (state & 0x8000U);
    const std::uint32_t low = 0x3C00U | ((state >> 18) & 127U) | ((state >> 1) & 0x8000U);
    words[i] = (high << 16) | low;
  }
}

std::size_t share_of_memory(double share, std::size_t most) {
  const auto memory = read_environment().memory_bytes;
  if (!memory) return most / 4;
  return std::min(most, static_cast<std::size_t>(share * static_cast<double>(*memory)));
}

}  // namespace

Buffer::Buffer(std::size_t bytes) : size_(round_up(std::max<std::size_t>(bytes, 1), kHugePage)) {
  void* mapping = mmap(nullptr, size_ + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) {
    throw DeviceError("", "cannot reserve " + std::to_string(bytes >> 20) + " MiB for measurements",
                      "free some memory");
  }
  // The piece before the first huge page is given back, so that unmapping needs no second address.
  const auto address = reinterpret_cast<std::uintptr_t>(mapping);
  const std::size_t skipped = round_up(address, kHugePage) - address;
  if (skipped > 0) munmap(mapping, skipped);
  data_ = static_cast<std::byte*>(mapping) + skipped;
  if (skipped < kHugePage) munmap(data_ + size_, kHugePage - skipped);
  madvise(data_, size_, MADV_HUGEPAGE);  // without huge pages everything still works
  fill(data_, size_);
}

Buffer::~Buffer() { munmap(data_, size_); }

KernelBuffers::KernelBuffers(std::size_t most_weight_bytes)
    : weights(share_of_memory(1.0 / 3, most_weight_bytes)),
      input(share_of_memory(1.0 / 12, most_weight_bytes / 4)),
      output(share_of_memory(1.0 / 12, most_weight_bytes / 4)) {}

Ring::Ring(const Buffer& buffer, std::size_t piece_bytes, double ring_bytes)
    : base_(buffer.data()), piece_(round_up(std::max<std::size_t>(piece_bytes, 1), kPage)) {
  if (piece_ > buffer.size()) {
    throw DeviceError("", "a kernel needs " + std::to_string(piece_ >> 20) + " MiB at once, more than is set aside",
                      "measure smaller shapes on this machine");
  }
  const auto wanted = static_cast<std::size_t>(std::max(0.0, ring_bytes) / static_cast<double>(piece_));
  pieces_ = std::clamp<std::size_t>(wanted, 1, buffer.size() / piece_);
}

std::byte* Ring::next() {
  std::byte* piece = base_ + at_ * piece_;
  at_ = at_ + 1 < pieces_ ? at_ + 1 : 0;
  return piece;
}

void Ring::append_regions(std::vector<Region>& regions) const {
  if (static_cast<double>(bytes()) <= kWholeReaches * cache_reach_bytes()) {
    regions.emplace_back(base_, bytes());
    return;
  }
  const std::size_t behind =
      std::min(pieces_ - 1, static_cast<std::size_t>(kBehindReaches * cache_reach_bytes()) / piece_ + 1);
  const std::size_t first = (at_ + pieces_ - behind) % pieces_;
  const std::size_t straight = std::min(behind, pieces_ - first);
  regions.emplace_back(base_ + first * piece_, straight * piece_);
  regions.emplace_back(base_, (behind - straight) * piece_);
}

}  // namespace moecast
