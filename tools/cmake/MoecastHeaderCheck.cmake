# header_check: every header of the project compiles alone. One translation unit per header that holds nothing but its
# #include, twice, so that a missing guard shows too. Not part of "all"; tools/test builds it.
file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE ${CMAKE_SOURCE_DIR}
     models/*.h hwprofiles/*.h profiler/*.h sim/*.h tools/*.h tools/*.hpp tests/*.h)
set(units "")
foreach(header IN LISTS headers)
  string(REPLACE "/" "__" unit ${header})
  set(unit ${CMAKE_BINARY_DIR}/header_check/${unit}.cpp)
  file(CONFIGURE OUTPUT ${unit} CONTENT "#include \"${header}\"\n#include \"${header}\"\n" @ONLY)
  list(APPEND units ${unit})
endforeach()
add_library(header_check OBJECT EXCLUDE_FROM_ALL ${units})
target_link_libraries(header_check PRIVATE moecast::cli moecast_flags Eigen3::Eigen fmt::fmt nlohmann_json::nlohmann_json)
target_include_directories(header_check PRIVATE ${CMAKE_SOURCE_DIR}/tools/c)  # as programs that use moecast.hpp have it
target_compile_options(header_check PRIVATE -O0)
target_compile_definitions(header_check PRIVATE MOECAST_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
