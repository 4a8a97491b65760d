#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace moecast {

/// zlib stream of `bytes`: equal bytes give equal streams.
std::string compress_bytes(std::string_view bytes);

/// Undoes it. @param size  of the result. @throws InputError (naming `where`) when the stream is damaged or holds
/// another number of bytes.
std::string decompress_bytes(std::string_view stream, std::size_t size, const std::string& where);

}  // namespace moecast
