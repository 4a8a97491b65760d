#pragma once
#include <cstddef>
#include <span>
#include <vector>

namespace moecast {

using Region = std::span<const std::byte>;

/// A loop over more bytes than this finds nothing of its own in a cache: four times the last-level cache that the
/// system shows, at most 150 MB (a Xeon that showed 260 or 503 MB kept nothing of more); 150 MB where it shows none.
double cache_reach_bytes();

/// How often memory is read before a measurement, so that the caches hold what they would hold in a loop over so many
/// bytes that has run for long. Private caches settle at the first pass. A last-level cache shared by many cores takes
/// new lines reluctantly: on a Xeon, reading doubled its rate after 4 passes over 50 MB, 6 to 8 over 70, 16 to 28 over
/// 100, and from 140 MB on never. So one pass for every 6 MB, at least three; beyond `reach_bytes` one.
int settling_passes(double loop_bytes, double reach_bytes = cache_reach_bytes());

/// Makes these passes over the regions, one after the other, each shared out over `threads`.
/// @param loop_bytes  of the whole loop, of which the regions may be the part worth reading.
void settle_caches(const std::vector<Region>& regions, double loop_bytes, int threads);

}  // namespace moecast
