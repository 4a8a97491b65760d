# Flags that every target shares, and the two ways to make one.
add_library(moecast_flags INTERFACE)
target_compile_options(moecast_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
                       $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>  # false alarms of g++ 12 in its AVX-512 headers (GCC bug 105593)
                       -fno-math-errno -fno-trapping-math  # nobody reads errno or floating-point flags; loops vectorise
                       $<$<BOOL:${MOECAST_WERROR}>:-Werror> $<$<BOOL:${MOECAST_NATIVE}>:-march=native>)
# GCC 12 stores {a, a, b, 0} as {a, a, a, a} with AVX-512 (std::vector<double>{1, 1, 0, 0} holds four ones).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  add_compile_options(-fno-tree-slp-vectorize)
endif()
if(MOECAST_SANITIZE)
  target_compile_options(moecast_flags INTERFACE -fsanitize=${MOECAST_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(moecast_flags INTERFACE -fsanitize=${MOECAST_SANITIZE})
endif()
if(MOECAST_FUZZ)
  target_compile_options(moecast_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined)
  target_link_options(moecast_flags INTERFACE -fsanitize=address,undefined)
endif()

# compile_in_units(<target> [EXCEPT regex]): several files as one, where MOECAST_UNITY asks for it. What matches the
# regex stays alone: files that share names on purpose, and loops whose code must not depend on their neighbours.
function(compile_in_units target)
  cmake_parse_arguments(ARG "" "EXCEPT" "" ${ARGN})
  if(NOT MOECAST_UNITY)
    return()
  endif()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
  target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)  # of one file by itself
  if(ARG_EXCEPT)
    get_target_property(alone ${target} SOURCES)
    list(FILTER alone INCLUDE REGEX "${ARG_EXCEPT}")
    set_source_files_properties(${alone} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  endif()
endfunction()

# moecast_library(<folder name> [EXCLUDE regex] [ALONE regex] [PUBLIC lib...] [PRIVATE lib...]): all sources below the calling folder.
function(moecast_library name)
  cmake_parse_arguments(ARG "" "EXCLUDE;ALONE" "PUBLIC;PRIVATE" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.h)
  if(ARG_EXCLUDE)
    list(FILTER sources EXCLUDE REGEX "${CMAKE_CURRENT_SOURCE_DIR}/${ARG_EXCLUDE}")
  endif()
  add_library(moecast_${name} STATIC ${sources})
  add_library(moecast::${name} ALIAS moecast_${name})
  target_sources(moecast_${name} PUBLIC FILE_SET HEADERS BASE_DIRS ${CMAKE_SOURCE_DIR} FILES ${headers})
  set_target_properties(moecast_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  compile_in_units(moecast_${name} EXCEPT "${ARG_ALONE}")
  target_link_libraries(moecast_${name} PUBLIC ${ARG_PUBLIC} PRIVATE moecast_flags ${ARG_PRIVATE})
endfunction()
