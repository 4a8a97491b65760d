# Every library comes from the system; nothing is downloaded. docs/dependencies.md says why each is here.
find_package(Threads REQUIRED)
find_package(Eigen3 3.4 REQUIRED NO_MODULE)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(ZLIB REQUIRED)
find_package(CLI11 REQUIRED)
find_package(benchmark REQUIRED)
if(NOT MOECAST_FUZZ)
  find_package(OpenMP REQUIRED COMPONENTS CXX)
endif()

# SimGrid has no package file in Debian.
find_path(SIMGRID_INCLUDE_DIR simgrid/s4u.hpp REQUIRED)
find_library(SIMGRID_LIBRARY simgrid REQUIRED)

# Ranks. The program that measures them is left out where MPI is missing.
if(NOT MOECAST_FUZZ)
  set(MPI_CXX_SKIP_MPICXX ON)
  find_package(MPI COMPONENTS CXX)
endif()

# CPU backends: each is optional, the profiler says which it has.
# oneDNN's own package file insists on OpenCL, which nothing here uses and Debian only recommends.
find_path(DNNL_INCLUDE_DIR dnnl.hpp)
find_library(DNNL_LIBRARY dnnl)
# The OpenMP build first: its threads are the ones that oneDNN and our own loops use. The idle threads of the pthread
# build spin beside them and made layers of two threads 2 to 17 times slower.
find_path(OPENBLAS_INCLUDE_DIR cblas.h PATH_SUFFIXES openblas-openmp openblas-pthread openblas
          HINTS /usr/include/x86_64-linux-gnu/openblas-openmp /usr/include/x86_64-linux-gnu)
find_library(OPENBLAS_LIBRARY openblas PATH_SUFFIXES openblas-openmp openblas-pthread)

find_program(CCACHE ccache)
if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Paths are taken relative to the build's folder, so that builds in other clones, and the wheel's, find the same entries;
  # and a precompiled header is no reason to miss.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR}
      CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE})
endif()
include(MoecastCuda)
