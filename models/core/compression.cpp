#include "models/core/compression.h"

#include <zlib.h>

#include "models/core/error.h"

namespace moecast {

std::string compress_bytes(std::string_view bytes) {
  uLongf size = compressBound(static_cast<uLong>(bytes.size()));
  std::string stream(size, '\0');
  const int code = compress2(reinterpret_cast<Bytef*>(stream.data()), &size,
                             reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uLong>(bytes.size()), 9);
  if (code != Z_OK) throw DeviceError("", "zlib cannot compress");
  stream.resize(size);
  return stream;
}

std::string decompress_bytes(std::string_view stream, std::size_t size, const std::string& where) {
  std::string bytes(size, '\0');
  auto got = static_cast<uLongf>(size);
  const int code = uncompress(reinterpret_cast<Bytef*>(bytes.data()), &got,
                              reinterpret_cast<const Bytef*>(stream.data()), static_cast<uLong>(stream.size()));
  if (code != Z_OK || got != size) throw InputError(where, "is damaged", "make it again, or copy it again");
  return bytes;
}

}  // namespace moecast
