# farshore_folder(NAME [USES folder...] [LINKS target...])
#
# One static library `farshore_NAME` from every *.cc of the calling folder, and beside it:
#   *_test.cc   one GoogleTest program, NAME_test
#   *_fuzz.cc   one libFuzzer program each (with FARSHORE_FUZZ)
#   *_bench.cc  one Google Benchmark program, NAME_bench
#   *_main.cc, *_plugin.cc  left alone: the folder's CMakeLists.txt says what they make
# USES names the farshore folders that it may include; FARSHORE_LAYERS fixes their order, so a link
# against a folder further down is an error at configure time.
set(FARSHORE_LAYERS base os codec keys extract record store sim replica plan block capture ebpf tap replicate meta compute
    recovery agent appliance vault cli)
set(FARSHORE_WARNINGS -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
    -Wno-missing-field-initializers -Werror=return-type -Werror=unused-result)

# A sanitized plugin needs its sanitizer's runtime in nbdkit, which is not ours; and in nothing else that a
# test starts, since QEMU's coroutines do not stand it. Tests of such builds find this nbdkit first. A
# report of the sanitizer ends it, which the test notices.
set(FARSHORE_SANITIZED_PATH "")
if(CMAKE_CXX_FLAGS MATCHES "-fsanitize=(address|thread)" AND CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  set(runtimes "")
  set(names libasan libubsan)
  if(CMAKE_CXX_FLAGS MATCHES "-fsanitize=thread")
    set(names libtsan)
  endif()
  foreach(runtime ${names})
    execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=${runtime}.so
                    OUTPUT_VARIABLE file OUTPUT_STRIP_TRAILING_WHITESPACE)
    string(APPEND runtimes " ${file}")
  endforeach()
  find_program(NBDKIT nbdkit REQUIRED)
  set(FARSHORE_SANITIZED_PATH ${CMAKE_BINARY_DIR}/sanitized)
  file(CONFIGURE OUTPUT ${FARSHORE_SANITIZED_PATH}/nbdkit @ONLY CONTENT "#!/bin/sh
export LD_PRELOAD='@runtimes@' ASAN_OPTIONS=detect_leaks=0 TSAN_OPTIONS=halt_on_error=1
exec @NBDKIT@ \"$@\"
")
  file(CHMOD ${FARSHORE_SANITIZED_PATH}/nbdkit PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
endif()

# farshore_units(VARIABLE TARGET file...): what is compiled instead of these files (units.py). Files with
# options of their own (the folder's CMakeLists.txt sets them before) stay as they are.
set(FARSHORE_UNIT_FILES 8 CACHE STRING "About how many sources are compiled at once; 1: each alone")
set(FARSHORE_UNITS_PROGRAM ${CMAKE_CURRENT_LIST_DIR}/units.py)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${FARSHORE_UNITS_PROGRAM})
function(farshore_units variable target)
  set(alone "")
  foreach(file ${ARGN})
    get_source_file_property(options ${file} COMPILE_OPTIONS)
    if(options)
      list(APPEND alone ${file})
    endif()
  endforeach()
  set(files ${ARGN})
  if(alone)
    list(REMOVE_ITEM files ${alone})
  endif()
  execute_process(
    COMMAND ${Python3_EXECUTABLE} ${FARSHORE_UNITS_PROGRAM} ${CMAKE_BINARY_DIR}/units/${target}
            ${PROJECT_SOURCE_DIR}/src ${FARSHORE_UNIT_FILES} ${files}
    OUTPUT_VARIABLE units COMMAND_ERROR_IS_FATAL ANY)
  set(${variable} ${units} ${alone} PARENT_SCOPE)
endfunction()

function(farshore_folder name)
  cmake_parse_arguments(ARG "" "" "USES;LINKS;TEST_USES" ${ARGN})
  list(FIND FARSHORE_LAYERS ${name} own_layer)
  file(GLOB all CONFIGURE_DEPENDS *.cc)
  set(library ${all})
  list(FILTER library EXCLUDE REGEX "_(test|fuzz|bench|main|plugin)\\.cc$")
  set(tests ${all})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  set(benches ${all})
  list(FILTER benches INCLUDE REGEX "_bench\\.cc$")
  set(fuzzers ${all})
  list(FILTER fuzzers INCLUDE REGEX "_fuzz\\.cc$")

  set(target farshore_${name})
  if(library)
    farshore_units(units ${target} ${library})
    add_library(${target} STATIC ${units})
    set(scope PUBLIC)
    target_compile_options(${target} PRIVATE ${FARSHORE_WARNINGS})
  else()
    add_library(${target} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_include_directories(${target} ${scope} ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(${target} ${scope} fmt::fmt Threads::Threads ${ARG_LINKS})
  foreach(used ${ARG_USES})
    list(FIND FARSHORE_LAYERS ${used} used_layer)
    if(used_layer EQUAL -1 OR used_layer GREATER_EQUAL own_layer)
      message(FATAL_ERROR "src/${name} may not use src/${used}: it does not stand above it")
    endif()
    target_link_libraries(${target} ${scope} farshore_${used})
  endforeach()

  if(tests)
    farshore_units(units ${name}_test ${tests})
    add_executable(${name}_test ${units})
    # Less optimised: a test is compiled more often than it runs.
    target_compile_options(${name}_test PRIVATE ${FARSHORE_WARNINGS} -O1)
    target_link_libraries(${name}_test PRIVATE ${target} GTest::gmock GTest::gtest GTest::gtest_main)
    foreach(used ${ARG_TEST_USES})
      target_link_libraries(${name}_test PRIVATE farshore_${used})
    endforeach()
    add_test(NAME ${name}_test COMMAND ${name}_test)
    # A hang is named long before the whole run is given up. What takes minutes begins first, also where
    # no run before this one has told ctest.
    set_tests_properties(${name}_test PROPERTIES TIMEOUT 1200)
    if(name MATCHES "^(replica|meta|capture|ebpf)$")
      set_tests_properties(${name}_test PROPERTIES COST 100)
    endif()
    if(FARSHORE_SANITIZED_PATH)
      set_tests_properties(${name}_test PROPERTIES
        ENVIRONMENT_MODIFICATION "PATH=path_list_prepend:${FARSHORE_SANITIZED_PATH}")
    endif()
  endif()
  if(benches)
    add_executable(${name}_bench ${benches})
    target_link_libraries(${name}_bench PRIVATE ${target} benchmark::benchmark benchmark::benchmark_main)
    foreach(used ${ARG_TEST_USES})
      target_link_libraries(${name}_bench PRIVATE farshore_${used})
    endforeach()
  endif()
  if(FARSHORE_FUZZ)
    foreach(source ${fuzzers})
      get_filename_component(program ${source} NAME_WE)
      add_executable(${program} ${source})
      target_compile_options(${program} PRIVATE -fsanitize=fuzzer)
      target_link_options(${program} PRIVATE -fsanitize=fuzzer)
      target_link_libraries(${program} PRIVATE ${target})
      foreach(used ${ARG_TEST_USES})
        target_link_libraries(${program} PRIVATE farshore_${used})
      endforeach()
    endforeach()
  endif()
endfunction()
