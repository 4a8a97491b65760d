#include "models/plan/context_limit.h"

namespace moecast {

std::string beyond_context(const Architecture& architecture, std::int64_t longest) {
  if (architecture.max_context <= 0 || longest <= architecture.max_context) return "";
  return "sequences of " + std::to_string(longest) + " tokens exceed the " + std::to_string(architecture.max_context) +
         " that " + architecture.name + " is made for (--max-context, where it is stretched)";
}

}  // namespace moecast
