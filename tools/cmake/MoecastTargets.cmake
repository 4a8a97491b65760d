# Flags that every target shares, and the two ways to make one.
add_library(moecast_flags INTERFACE)
target_compile_options(moecast_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
                       $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>  # false alarms of g++ 12 in its AVX-512 headers (GCC bug 105593)
                       -fno-math-errno -fno-trapping-math  # nobody reads errno or floating-point flags; loops vectorise
                       $<$<BOOL:${MOECAST_WERROR}>:-Werror> $<$<BOOL:${MOECAST_NATIVE}>:-march=native>)
if(MOECAST_SANITIZE)
  target_compile_options(moecast_flags INTERFACE -fsanitize=${MOECAST_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(moecast_flags INTERFACE -fsanitize=${MOECAST_SANITIZE})
endif()
if(MOECAST_FUZZ)
  target_compile_options(moecast_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined)
  target_link_options(moecast_flags INTERFACE -fsanitize=address,undefined)
endif()

# moecast_library(<folder name> [EXCLUDE regex] [PUBLIC lib...] [PRIVATE lib...]): all sources below the calling folder.
function(moecast_library name)
  cmake_parse_arguments(ARG "" "EXCLUDE" "PUBLIC;PRIVATE" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.h)
  if(ARG_EXCLUDE)
    list(FILTER sources EXCLUDE REGEX "${CMAKE_CURRENT_SOURCE_DIR}/${ARG_EXCLUDE}")
  endif()
  add_library(moecast_${name} STATIC ${sources})
  add_library(moecast::${name} ALIAS moecast_${name})
  target_sources(moecast_${name} PUBLIC FILE_SET HEADERS BASE_DIRS ${CMAKE_SOURCE_DIR} FILES ${headers})
  set_target_properties(moecast_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(moecast_${name} PUBLIC ${ARG_PUBLIC} PRIVATE moecast_flags ${ARG_PRIVATE})
endfunction()
