// The functions of moecast.h: arguments are checked and copied, exceptions become status codes.
#include "tools/c/moecast.h"

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <string_view>

#include "models/core/error.h"
#include "tools/c/error_text.h"
#include "tools/c/estimate.h"
#include "tools/c/machine.h"
#include "tools/c/question.h"

struct moecast_predictor {
  moecast::AskedMachine machine;
};

namespace moecast {
namespace {

/// What the last call that failed on this thread said.
thread_local ErrorText last_error;

/// Runs a call; what it throws becomes a status and a text.
template <class Call>
moecast_status guarded(const Call& call) noexcept {
  try {
    call();
    return MOECAST_OK;
  } catch (const UsageError& error) {
    last_error.say(error.what(), error.hint());
    return MOECAST_USAGE;
  } catch (const InputError& error) {
    last_error.say(error.what(), error.hint());
    return MOECAST_INPUT;
  } catch (const Error& error) {
    last_error.say(error.what(), error.hint());
    return MOECAST_DEVICE;
  } catch (const std::bad_alloc&) {
    last_error.say("out of memory", "close other programs or ask for smaller sizes");
    return MOECAST_DEVICE;
  } catch (const std::exception& error) {
    last_error.say("this is a bug in moecast: ", error.what(), "please report it with the call");
    return MOECAST_BUG;
  } catch (...) {
    last_error.say("this is a bug in moecast: an unknown exception", "please report it with the call");
    return MOECAST_BUG;
  }
}

template <class T>
T& there(T* pointer, const char* name) {
  if (pointer == nullptr) throw UsageError(name, "is NULL", "moecast.h says what it has to be");
  return *pointer;
}

/// A struct of the caller, who may know fewer fields than the library: the others keep their defaults.
/// @param first  bytes of the first version that was published.
template <class T>
T known_fields(const T& given, std::size_t first, const T& defaults, const char* name) {
  const std::size_t size = given.struct_size;
  if (size < first || size > sizeof(T)) {
    throw UsageError(
        std::string(name) + ".struct_size",
        "is " + std::to_string(size) + ", expected " + std::to_string(first) + " to " + std::to_string(sizeof(T)),
        size > sizeof(T) ? "the header is newer than the library" : "start from the _INIT of moecast.h");
  }
  T known = defaults;
  std::memcpy(&known, &given, size);
  return known;
}

// The structs as they were published first. Nothing is padded behind their last field: one that is added is seen.
constexpr std::size_t kFirstSettings = offsetof(moecast_settings, reserved) + sizeof(moecast_settings::reserved);
constexpr std::size_t kFirstConfig = offsetof(moecast_moe_config, reserved) + sizeof(moecast_moe_config::reserved);
constexpr std::size_t kFirstEstimate = offsetof(moecast_estimate, reason) + sizeof(moecast_estimate::reason);
static_assert(sizeof(moecast_settings) == kFirstSettings);
static_assert(sizeof(moecast_moe_config) == kFirstConfig);
static_assert(sizeof(moecast_estimate) == kFirstEstimate);

std::string text_of(const char* text) { return text == nullptr ? std::string() : std::string(text); }

MachineUse use_of(const moecast_settings* settings) {
  const moecast_settings defaults = MOECAST_SETTINGS_INIT;
  const moecast_settings known =
      settings == nullptr ? defaults : known_fields(*settings, kFirstSettings, defaults, "settings");
  if (known.reserved != 0) {
    throw UsageError("settings.reserved", "is " + std::to_string(known.reserved), "start from MOECAST_SETTINGS_INIT");
  }
  return {text_of(known.backend), text_of(known.dtype), text_of(known.strategy), text_of(known.data), known.threads};
}

char* copied(const std::string& text) {
  auto* copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (copy == nullptr) throw std::bad_alloc();
  std::memcpy(copy, text.c_str(), text.size() + 1);
  return copy;
}

}  // namespace
}  // namespace moecast

using moecast::guarded;
using moecast::there;

const char* moecast_version(void) { return MOECAST_VERSION; }

const char* moecast_last_error(void) { return moecast::last_error.text(); }

moecast_status moecast_open(const char* hw, const moecast_settings* settings, moecast_predictor** predictor) {
  if (predictor != nullptr) *predictor = nullptr;
  return guarded([&] {
    there(predictor, "predictor");
    const std::string name = &there(hw, "hw");
    *predictor = new moecast_predictor{moecast::open_machine(name, moecast::use_of(settings))};
  });
}

void moecast_close(moecast_predictor* predictor) { delete predictor; }

moecast_status moecast_predict(const moecast_predictor* predictor, const char* question_json, char** answer_json) {
  if (answer_json != nullptr) *answer_json = nullptr;
  return guarded([&] {
    const moecast::AskedMachine& machine = there(predictor, "predictor").machine;
    const std::string_view question = &there(question_json, "question_json");
    there(answer_json, "answer_json");
    *answer_json = moecast::copied(moecast::answer_question(machine, question));
  });
}

void moecast_free(char* answer_json) { std::free(answer_json); }

moecast_status moecast_estimate_latency(const moecast_predictor* predictor, const moecast_moe_config* config,
                                        moecast_estimate* estimate) {
  return guarded([&] {
    const moecast::AskedMachine& machine = there(predictor, "predictor").machine;
    const moecast_moe_config usual = MOECAST_MOE_CONFIG_INIT;
    const moecast_estimate empty = MOECAST_ESTIMATE_INIT;
    const moecast_moe_config asked =
        moecast::known_fields(there(config, "config"), moecast::kFirstConfig, usual, "config");
    moecast_estimate answer =
        moecast::known_fields(there(estimate, "estimate"), moecast::kFirstEstimate, empty, "estimate");
    moecast::estimate_layer(machine, asked, answer);
    std::memcpy(estimate, &answer, answer.struct_size);
  });
}
